// `openai` for Node, chat completions.
import OpenAI from "openai";

export async function ask(task, { url, key, model, question, tool, result }) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
  const messages = [{ role: "user", content: question }];
  if (task === "complete") {
    const { choices: [choice] } = await client.chat.completions.create({ model, messages });
    return { text: choice.message.content, was_cut: choice.finish_reason === "length" };
  }
  if (task === "stream") {
    let text = "", reason = null;
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
      text += chunk.choices[0]?.delta?.content ?? "";
      reason = chunk.choices[0]?.finish_reason ?? reason;
    }
    return { text, was_cut: reason === "length" };
  }
  const tools = [{ type: "function", function: { name: tool, parameters: { type: "object", properties: {} } } }];
  for (let results = 0; ; ) {
    const { choices: [{ message }] } = await client.chat.completions.stream({ model, messages, tools }).finalChatCompletion();
    if (!message.tool_calls?.length) return { results };
    messages.push(message);
    for (const call of message.tool_calls) {
      messages.push({ role: "tool", tool_call_id: call.id, content: result });
      results += 1;
    }
  }
}
