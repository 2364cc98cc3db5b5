// The openai package: its helpers for strict tools, structured answers and streams.

import OpenAI from "openai";
import {
  zodFunction,
  zodResponseFormat,
  zodResponsesFunction,
  zodTextFormat,
} from "openai/helpers/zod";
import { z } from "zod";
import { CUT, Draw, only, Paint, QUESTION, runAll, URL, WRONG } from "./walls.mjs";

const options = { baseURL: URL, apiKey: "none", maxRetries: 0 };
const client = new OpenAI({ ...options, dangerouslyAllowBrowser: true });
const chat = client.chat.completions;
const ask = { model: "tiny", messages: [{ role: "user", content: QUESTION }] };
const paint = { name: "Paint", description: "Paint a wall.", parameters: z.toJSONSchema(Paint) };
const plain = { type: "function", function: paint };
const draw = zodFunction({ name: "Draw", parameters: Draw });
const forced = { type: "function", function: { name: "Draw" } };

const callOf = (completion) => only(completion.choices[0].message.tool_calls).function;
const itemOf = (response) => only(response.output.filter((item) => item.type === "function_call"));

await runAll({
  async tools() {
    const completion = await chat.create({ ...ask, tools: [plain], tool_choice: "required" });
    return JSON.parse(callOf(completion).arguments);
  },
  async strict_tools() {
    const tools = [zodFunction({ name: "Paint", parameters: Paint })];
    const completion = await chat.parse({ ...ask, tools, tool_choice: "required" });
    return callOf(completion).parsed_arguments;
  },
  async union() {
    const tools = [zodFunction({ name: "Paint", parameters: Paint }), draw];
    const completion = await chat.parse({ ...ask, tools, tool_choice: forced });
    return callOf(completion).parsed_arguments;
  },
  async structured_answer() {
    const response_format = zodResponseFormat(Draw, "drawing");
    const completion = await chat.parse({ ...ask, response_format });
    return completion.choices[0].message.parsed;
  },
  async stream() {
    const stream = chat.stream({ ...ask, tools: [draw], tool_choice: "required" });
    let pieces = "";
    stream.on("tool_calls.function.arguments.delta", (event) => (pieces += event.arguments_delta));
    const call = callOf(await stream.finalChatCompletion());
    if (pieces !== call.arguments) {
      throw new Error(`${pieces} is not ${call.arguments}`);
    }
    return call.parsed_arguments;
  },
  async history() {
    const call = { id: "c1", type: "function", function: { name: "Paint", arguments: CUT } };
    const messages = [
      ...ask.messages,
      { role: "assistant", content: null, tool_calls: [call] },
      { role: "tool", tool_call_id: "c1", content: WRONG },
    ];
    const asked = { ...ask, messages, tools: [plain], tool_choice: "required" };
    return JSON.parse(callOf(await chat.create(asked)).arguments);
  },
  async responses() {
    const tools = [{ type: "function", ...paint, strict: false }];
    const asked = { model: "tiny", input: QUESTION, tools, tool_choice: "required" };
    return JSON.parse(itemOf(await client.responses.create(asked)).arguments);
  },
  async responses_stream() {
    const tools = [zodResponsesFunction({ name: "Draw", parameters: Draw })];
    const asked = { model: "tiny", input: QUESTION, tools, tool_choice: "required" };
    const response = await client.responses.stream(asked).finalResponse();
    return Draw.parse(JSON.parse(itemOf(response).arguments));
  },
  async responses_answer() {
    const text = { format: zodTextFormat(Draw, "drawing") };
    const asked = { model: "tiny", input: QUESTION, text };
    return (await client.responses.parse(asked)).output_parsed;
  },
});
