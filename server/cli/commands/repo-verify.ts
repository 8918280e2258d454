import type { Command } from 'commander';
import type { Json } from '../api-client.js';
import { CliError, ConnectionLost } from '../cli-error.js';
import { allRows, type CommandContext, contextOf, rows as rowsOf } from '../context.js';
import { plain, table } from '../output.js';
import { createProgressDisplay } from '../progress-display.js';
import { pathOf } from './repo.js';

/** `quorate repo verify`. */
export function addVerifyCommand(repo: Command): void {
  repo
    .command('verify')
    .argument('[name]')
    .description('read every copy of a repository from its disk; what is damaged is healed')
    .option('--all', 'every repository')
    .action(
      async (name: string | undefined, options: { readonly all?: true }, command: Command) => {
        if ((name === undefined) === (options.all === undefined)) {
          throw new CliError('name one repository, or say --all', { exitCode: 2 });
        }
        const context = contextOf(command);
        const { terminal } = context;
        const copies =
          name === undefined ? await verifyAll(context) : await verifyOne(context, name);
        if (terminal.json) terminal.printJson(copies);
        else {
          const columns = [
            { title: 'REPOSITORY', key: 'repository' },
            { title: 'NODE', key: 'nodeId' },
            { title: 'GENERATION', key: 'generation' },
            { title: 'PROBLEMS', key: 'problems', show: firstProblem },
          ];
          terminal.print(table(columns, copies));
        }
        failWhenUnsound(copies);
      },
    );
}

async function verifyOne({ stream }: CommandContext, name: string): Promise<readonly Json[]> {
  const copies = rowsOf(await stream(`${pathOf(name)}/verify`), 'copies');
  return copies.map((copy) => ({ repository: name, ...copy }));
}

/** One after the other, behind one bar. What one repository says is no reason not to go on with the next. */
async function verifyAll(context: CommandContext): Promise<readonly Json[]> {
  const { request, stream } = context;
  // Said once, and not of each repository: this is no cluster, or not for this user.
  await request('GET', '/nodes');
  const names = (await allRows(request, '/repositories', 'repositories')).map((one) =>
    plain(one['name']),
  );
  const display = await createProgressDisplay(process.stderr);
  const quiet: CommandContext['stream'] = (path, body) => stream(path, body, () => undefined);
  const found: Json[] = [];
  try {
    for (const [done, name] of names.entries()) {
      display.update({ step: 'verifying', done, total: names.length });
      try {
        found.push(...(await verifyOne({ ...context, stream: quiet }, name)));
      } catch (error) {
        if (!(error instanceof CliError) || error instanceof ConnectionLost) throw error;
        if (error.exitCode !== 1) throw error;
        found.push({ repository: name, nodeId: null, generation: null, unread: error.message });
      }
    }
    display.update({ step: 'verifying', done: names.length, total: names.length });
  } finally {
    display.stop();
  }
  return found;
}

function failWhenUnsound(copies: readonly Json[]): void {
  const damaged = copies.filter(
    ({ problems }) => Array.isArray(problems) && problems.length > 0,
  ).length;
  const unread = copies.filter((copy) => 'unread' in copy).length;
  const all = copies.length;
  const said = [
    ...(damaged === 0 ? [] : [`${damaged} of ${all} copies are damaged and being healed`]),
    ...(unread === 0
      ? []
      : [`${unread} of ${all} copies could not be read: verify again when their nodes answer`]),
  ];
  if (said.length > 0) throw new CliError(said.join('; '));
}

function firstProblem(problems: unknown, { unread }: Json): string {
  if (typeof unread === 'string') return `not read: ${unread}`;
  if (!Array.isArray(problems) || problems.length === 0) return 'none';
  return `${problems.length}: ${plain(problems[0])}`;
}
