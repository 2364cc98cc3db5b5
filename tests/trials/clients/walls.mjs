// What the clients in Node and in the browser ask for, and the loop that runs it all by name.

import { z } from "zod";

// The server's address: the argument in Node, the search part of the page's address in a browser.
export const URL = globalThis.process?.argv?.[2] ?? location.search.slice(1);
export const QUESTION = "Make the wall nice.";
export const CUT = '{"colour": "red", "coats":';
export const WRONG = "Error: the arguments are not JSON";

export const Paint = z.object({
  colour: z.enum(["red", "green", "blue"]),
  coats: z.number().int().min(1).max(3),
});

const size = z.number().int().min(1).max(9);
export const Draw = z.object({
  shape: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("circle"), radius: size }),
    z.object({ kind: z.literal("square"), side: size, is_filled: z.boolean() }),
  ]),
});

/** Prints what each function returns or throws, a line each, by its name. */
export async function runAll(functions) {
  for (const [name, ask] of Object.entries(functions)) {
    let found;
    try {
      found = { name, found: await ask() };
    } catch (error) {
      const [first, place] = error.stack.split("\n    at ");
      found = { name, error: `${first} (${place}) ${error.responseBody ?? ""}`.slice(0, 2000) };
    }
    console.log(JSON.stringify(found));
  }
}

/** The only element of a list. */
export function only(list) {
  if (list.length !== 1) {
    throw new Error(`not one but ${JSON.stringify(list)}`);
  }
  return list[0];
}
