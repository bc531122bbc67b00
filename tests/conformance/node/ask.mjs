// Does what a test asks, with the client it names, and prints what the client made of it as one line of JSON.
const [client, task, asked] = process.argv.slice(2);
const { ask } = await import(`./${client}.mjs`);
const where = JSON.parse(asked);

try {
  console.log(JSON.stringify(await ask(task, where)));
} catch (error) {
  if (error.status === undefined) throw error;
  console.log(JSON.stringify({ refused: error.constructor.name, status: error.status, code: error.code ?? error.error?.error?.code ?? null }));
}
