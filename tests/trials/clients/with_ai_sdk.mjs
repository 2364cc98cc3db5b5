// The AI SDK with both of its providers; @ai-sdk/openai speaks the Responses API by default.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, streamText, tool } from "ai";
import { CUT, Draw, only, Paint, QUESTION, runAll, URL, WRONG } from "./walls.mjs";

const compatible = createOpenAICompatible({
  name: "calltune",
  baseURL: URL,
  apiKey: "none",
  supportsStructuredOutputs: true,
});
const openai = createOpenAI({ baseURL: URL, apiKey: "none" });
const models = {
  compatible: compatible("tiny"),
  chat: openai.chat("tiny"),
  responses: openai("tiny"),
};

const paint = tool({ description: "Paint a wall.", inputSchema: Paint });
const draw = tool({ description: "Draw a shape.", inputSchema: Draw });
const strictPaint = tool({ description: "Paint a wall.", inputSchema: Paint, strict: true });
const strictDraw = tool({ description: "Draw a shape.", inputSchema: Draw, strict: true });

function scenarios(model) {
  const ask = { model, prompt: QUESTION, maxRetries: 0, toolChoice: "required" };
  return {
    async tools() {
      return only((await generateText({ ...ask, tools: { paint } })).toolCalls).input;
    },
    async strict_tools() {
      return only((await generateText({ ...ask, tools: { paint: strictPaint } })).toolCalls).input;
    },
    async union() {
      const toolChoice = { type: "tool", toolName: "draw" };
      const tools = { paint, draw: strictDraw };
      return only((await generateText({ ...ask, tools, toolChoice })).toolCalls).input;
    },
    async structured_answer() {
      const output = Output.object({ schema: Draw });
      return (await generateText({ model, prompt: QUESTION, maxRetries: 0, output })).output;
    },
    async stream() {
      const { fullStream } = streamText({ ...ask, tools: { draw } });
      const calls = [];
      for await (const part of fullStream) {
        if (part.type === "error") {
          throw part.error;
        }
        if (part.type === "tool-call") {
          calls.push(part.input);
        }
      }
      return only(calls);
    },
    async history() {
      const output = { type: "error-text", value: WRONG };
      const about = { toolCallId: "c1", toolName: "paint" };
      const messages = [
        { role: "user", content: QUESTION },
        { role: "assistant", content: [{ type: "tool-call", ...about, input: CUT }] },
        { role: "tool", content: [{ type: "tool-result", ...about, output }] },
      ];
      const { prompt, ...rest } = ask;
      return only((await generateText({ ...rest, messages, tools: { paint } })).toolCalls).input;
    },
  };
}

const all = {};
for (const [name, model] of Object.entries(models)) {
  for (const [scenario, ask] of Object.entries(scenarios(model))) {
    all[`${name}_${scenario}`] = ask;
  }
}
await runAll(all);
