// Vercel's AI SDK, on each of its providers that speaks a format of ours.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool as toolOf } from "ai";

const PROVIDERS = {
  responses: (baseURL, apiKey, model) => createOpenAI({ baseURL, apiKey })(model),
  chat: (baseURL, apiKey, model) => createOpenAI({ baseURL, apiKey }).chat(model),
  messages: (baseURL, apiKey, model) => createAnthropic({ baseURL, apiKey })(model),
  compatible: (baseURL, apiKey, model) => createOpenAICompatible({ name: "tokencap", baseURL, apiKey })(model),
};
const THING = jsonSchema(
  {
    type: "object",
    properties: { name: { type: "string" }, length_m: { type: "number" } },
    required: ["name", "length_m"],
    additionalProperties: false,
  },
  { validate: (value) => ("length_m" in value ? { success: true, value } : { success: false, error: new Error("It has no length.") }) },
);

export async function ask(task, { url, key, model: name, question: prompt, mode, maxRetries, tool, result, stream }) {
  const model = PROVIDERS[mode](`${url}/v1`, key, name);
  if (task === "complete") {
    const { text, finishReason } = await generateText({ model, prompt, maxRetries });
    return { text, was_cut: finishReason === "length" };
  }
  if (task === "stream") {
    let text = "", reason;
    for await (const part of streamText({ model, prompt, maxRetries, onError() {} }).fullStream) {
      if (part.type === "error") throw part.error;
      if (part.type === "text-delta") text += part.text;
      if (part.type === "finish") reason = part.finishReason;
    }
    return { text, was_cut: reason === "length" };
  }
  if (task === "structure") {
    const output = Output.object({ schema: THING });
    return stream ? await streamText({ model, prompt, output }).output : (await generateText({ model, prompt, output })).output;
  }
  let results = 0;
  const execute = () => (results++, result);
  const tools = { [tool]: toolOf({ inputSchema: jsonSchema({ type: "object", properties: {} }), execute }) };
  await generateText({ model, prompt, tools, stopWhen: stepCountIs(100) });
  return { results };
}
