// Does what tests ask, line by line, with the client that each line names, and prints what the client made of it as a line of JSON.
import { createInterface } from "node:readline";

// A client's own exception may wrap the one that tells the status.
function refusal(error) {
  let told = error;
  while (told && told.status === undefined && told.statusCode === undefined) told = told.lastError ?? told.cause;
  if (!told) throw error;
  const body = told.data ?? told.error;
  const code = told.code ?? body?.error?.code ?? body?.code ?? null;
  return { refused: error.constructor.name, status: told.status ?? told.statusCode, code };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { client, task, ...asked } = JSON.parse(line);
  const { ask } = await import(`./${client}.mjs`);
  console.log(JSON.stringify(await ask(task, asked).catch(refusal)));
}
