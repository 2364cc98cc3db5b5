// The AI SDK's loop, over a stream of the Responses API, which @ai-sdk/openai speaks by default.

import { createOpenAI } from "@ai-sdk/openai";
import { stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { add, askAll, URL, weather } from "./loop.mjs";

const provider = createOpenAI({ baseURL: URL, apiKey: "none" });
const tools = {
  weather: tool({
    description: "Get the weather in a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: weather,
  }),
  add: tool({
    description: "Add two numbers.",
    inputSchema: z.object({ a: z.number().int(), b: z.number().int() }),
    execute: add,
  }),
};

await askAll((prompt) => {
  const asked = { model: provider("tuned"), prompt, tools, temperature: 0 };
  return streamText({ ...asked, stopWhen: stepCountIs(5) }).text;
});
