// openai's own loop: it runs the functions and asks again, over a stream.

import OpenAI from "openai";
import { zodFunction } from "openai/helpers/zod";
import { z } from "zod";
import { add, askAll, URL, weather } from "./loop.mjs";

const client = new OpenAI({ baseURL: URL, apiKey: "none" });
const tools = [
  zodFunction({
    name: "weather",
    description: "Get the weather in a city.",
    parameters: z.object({ city: z.string() }),
    function: weather,
  }),
  zodFunction({
    name: "add",
    description: "Add two numbers.",
    parameters: z.object({ a: z.number().int(), b: z.number().int() }),
    function: add,
  }),
];

await askAll((question) => {
  const messages = [{ role: "user", content: question }];
  const asked = { model: "tuned", messages, tools, temperature: 0, stream: true };
  return client.chat.completions.runTools(asked, { maxChatCompletions: 5 }).finalContent();
});
