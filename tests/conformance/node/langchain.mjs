// LangChain for Node, on `openai` and on `@anthropic-ai/sdk`.
import { ChatAnthropic } from "@langchain/anthropic";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { ChatOpenAI } from "@langchain/openai";

const MODELS = {
  chat: (url, given) => new ChatOpenAI({ ...given, configuration: { baseURL: `${url}/v1` } }),
  responses: (url, given) => new ChatOpenAI({ ...given, useResponsesApi: true, configuration: { baseURL: `${url}/v1` } }),
  messages: (url, given) => new ChatAnthropic({ ...given, anthropicApiUrl: url }),
};
const THING = {
  title: "Thing",
  type: "object",
  properties: { name: { type: "string" }, length_m: { type: "number" } },
  required: ["name", "length_m"],
  additionalProperties: false,
};
const ENDINGS = new Set(["length", "max_tokens", "incomplete"]);

// Each format has a place of its own for the end.
function answer(message) {
  const { finish_reason, stop_reason, status } = { ...message.additional_kwargs, ...message.response_metadata };
  return { text: message.text, was_cut: [finish_reason, stop_reason, status].some((one) => ENDINGS.has(one)) };
}

export async function ask(task, { url, key, model: name, question, mode, tool, result, stream, maxRetries, method }) {
  const model = MODELS[mode](url, { model: name, apiKey: key, maxRetries });
  if (task === "complete") return answer(await model.invoke(question));
  if (task === "stream") {
    let whole;
    for await (const chunk of await model.stream(question)) whole = whole ? whole.concat(chunk) : chunk;
    return answer(whole);
  }
  if (task === "structure") {
    const structured = model.withStructuredOutput(THING, { method });
    if (!stream) return await structured.invoke(question);
    let last;
    for await (const one of await structured.stream(question)) last = one;
    return last;
  }
  if (task === "structureAndAnswer") {
    const { raw, parsed } = await model.withStructuredOutput(THING, { method, includeRaw: true }).invoke(question);
    return { ...answer(raw), parsed: parsed ?? null };
  }
  const bound = model.bindTools([{ type: "function", function: { name: tool, parameters: { type: "object", properties: {} } } }]);
  const messages = [new HumanMessage(question)];
  for (let results = 0; ; ) {
    const said = await bound.invoke(messages);
    if (!said.tool_calls?.length) return { results };
    messages.push(said);
    for (const call of said.tool_calls) {
      messages.push(new ToolMessage({ content: result, tool_call_id: call.id }));
      results += 1;
    }
  }
}
