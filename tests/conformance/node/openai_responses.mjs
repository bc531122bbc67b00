// `openai` for Node, responses.
import OpenAI from "openai";

export async function ask(task, { url, key, model, question, tool, result }) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
  if (task === "complete") {
    const answer = await client.responses.create({ model, input: question });
    return { text: answer.output_text, was_cut: answer.status === "incomplete" };
  }
  if (task === "stream") {
    let text = "";
    const stream = client.responses.stream({ model, input: question });
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    const answer = await stream.finalResponse();
    return { text, was_cut: answer.status === "incomplete" };
  }
  const tools = [{ type: "function", name: tool, parameters: { type: "object", properties: {} }, strict: false }];
  let input = question, previous_response_id;
  for (let results = 0; ; ) {
    const answer = await client.responses.create({ model, input, tools, previous_response_id });
    const calls = answer.output.filter((item) => item.type === "function_call");
    if (!calls.length) return { results };
    input = calls.map((call) => ({ type: "function_call_output", call_id: call.call_id, output: result }));
    previous_response_id = answer.id;
    results += calls.length;
  }
}
