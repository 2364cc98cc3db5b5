// Discord's requests as OpenAI's list of tools: no package carries its OpenAPI document itself, but
// discord-api-spec has the document's schemas as zod's.

import * as schemas from "discord-api-spec/zod";
import { toJSONSchema } from "zod";

const tools = Object.entries(schemas)
  .filter(([name]) => name.endsWith("RequestSchema"))
  .map(([name, schema]) => ({
    type: "function",
    function: {
      name: name.replace("RequestSchema", ""),
      description: `Send Discord this: ${name.replace("RequestSchema", "")}`,
      // What zod cannot write (undefined) stands as {}, which any value satisfies.
      parameters: toJSONSchema(schema, { io: "input", unrepresentable: "any" }),
    },
  }));
console.log(JSON.stringify(tools));
