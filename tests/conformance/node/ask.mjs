// Does what tests ask, line by line, with the client that each line names, and prints what the client made of it as a line of JSON.
import { createInterface } from "node:readline";

// A client's own exception may wrap the one that tells the status, or tell none at all.
function refusal(error) {
  console.error(error);
  let told = error;
  while (told && told.status === undefined && told.statusCode === undefined) told = told.lastError ?? told.cause;
  const body = told?.data ?? told?.error;
  const code = told?.code ?? body?.error?.code ?? body?.code ?? null;
  return { refused: error.constructor.name, status: told?.status ?? told?.statusCode ?? null, code };
}

// What clients print themselves goes beside the answers.
console.log = console.info = console.error;

for await (const line of createInterface({ input: process.stdin })) {
  const { client, task, ...asked } = JSON.parse(line);
  const { ask } = await import(`./${client}.mjs`);
  process.stdout.write(`${JSON.stringify(await ask(task, asked).catch(refusal))}\n`);
}
