// `@anthropic-ai/sdk` for Node.
import Anthropic from "@anthropic-ai/sdk";

export async function ask(task, { url, key, model, question, tool, result }) {
  const client = new Anthropic({ baseURL: url, apiKey: key });
  const messages = [{ role: "user", content: question }];
  const max_tokens = 10_000;
  const textOf = (answer) => answer.content.map((block) => block.text ?? "").join("");
  if (task === "complete") {
    const answer = await client.messages.create({ model, messages, max_tokens });
    return { text: textOf(answer), was_cut: answer.stop_reason === "max_tokens" };
  }
  if (task === "stream") {
    const answer = await client.messages.stream({ model, messages, max_tokens }).finalMessage();
    return { text: textOf(answer), was_cut: answer.stop_reason === "max_tokens" };
  }
  const tools = [{ name: tool, input_schema: { type: "object", properties: {} } }];
  for (let results = 0; ; ) {
    const answer = await client.messages.create({ model, messages, tools, max_tokens });
    const calls = answer.content.filter((block) => block.type === "tool_use");
    if (!calls.length) return { results };
    messages.push({ role: "assistant", content: answer.content });
    messages.push({ role: "user", content: calls.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: result })) });
    results += calls.length;
  }
}
