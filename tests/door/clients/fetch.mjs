// Node's own clients: fetch with a text and with a stream, and http in several writes, waiting to go on or not.
import http from "node:http";

const [url, key] = process.argv.slice(2);
const body = (mark) => JSON.stringify({ model: "aligned-1", messages: [{ role: "user", content: mark }], max_tokens: 3 });
const headers = (mark) => ({ authorization: `Bearer ${key}`, "content-type": "application/json", "x-conversation-id": mark });

async function fetched(mark, content, more = {}) {
  const answer = await fetch(`${url}/v1/chat/completions`, { method: "POST", headers: headers(mark), body: content, ...more });
  await answer.text();
  return [answer.status, answer.headers.get("x-tokencap-conversation")];
}

function asked(mark, more, write) {
  return new Promise((resolve, reject) => {
    const request = http.request(`${url}/v1/chat/completions`, { method: "POST", headers: { ...headers(mark), ...more } });
    request.on("error", reject);
    request.on("response", (answer) => {
      answer.resume();
      answer.on("end", () => resolve([answer.statusCode, answer.headers["x-tokencap-conversation"]]));
    });
    write(request, body(mark));
  });
}

const [text, stream, pieces, waiting, upgrade] = process.argv.slice(4);
const said = [
  await fetched(text, body(text)),
  await fetched(stream, new Blob([body(stream)]).stream(), { duplex: "half" }),
  await asked(pieces, {}, (request, content) => {
    request.write(content.slice(0, 20));
    request.end(content.slice(20));
  }),
  await asked(waiting, { expect: "100-continue" }, (request, content) => {
    request.on("continue", () => request.end(content));
    request.flushHeaders();
  }),
  await asked(upgrade, { connection: "Upgrade", upgrade: "h2c" }, (request, content) => request.end(content)),
];
console.log(JSON.stringify(said));
process.exit(0);
