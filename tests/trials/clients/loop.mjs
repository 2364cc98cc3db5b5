// Two functions for whole loops in Node, and what is printed of each: what ran, and the answer.

const [url, ...questions] = process.argv.slice(2);

export const URL = url;
const ran = [];

export function weather({ city }) {
  ran.push(["weather", { city }]);
  return `${city.length + 15} degrees and sunny in ${city}`;
}

export function add({ a, b }) {
  ran.push(["add", { a, b }]);
  return String(a + b);
}

/** Prints, for each question, the functions that were run and the answer in the end. */
export async function askAll(ask) {
  for (const question of questions) {
    ran.length = 0;
    const answer = await ask(question);
    console.log(JSON.stringify([ran, answer]));
  }
}
