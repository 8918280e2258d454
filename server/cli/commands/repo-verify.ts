import type { Command } from 'commander';
import type { Json } from '../api-client.js';
import { CliError, ConnectionLost } from '../cli-error.js';
import { allRows, type CommandContext, contextOf, rows as rowsOf } from '../context.js';
import { plain, printable, table } from '../output.js';
import { createProgressDisplay } from '../progress-display.js';
import { pathOf } from './repo.js';

/** The table has them all. */
const maxNamed = 5;
/** Of one copy; it takes a few to see what is damaged. */
const maxShown = 20;

/** `quorate repo verify`. */
export function addVerifyCommand(repo: Command): void {
  repo
    .command('verify')
    .argument('[name]')
    .description(
      'read every copy of a repository from its disk; what is damaged is healed from the others',
    )
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
          for (const copy of copies.filter(isDamaged)) terminal.print(allProblems(copy));
        }
        failWhenUnsound(copies);
      },
    );
}

async function verifyOne({ stream }: CommandContext, name: string): Promise<readonly Json[]> {
  const result = await stream(`${pathOf(name)}/verify`);
  const { repositoryId } = result;
  return rowsOf(result, 'copies').map((copy) => ({ repository: name, repositoryId, ...copy }));
}

/** One after the other, behind one bar. What one repository says is no reason not to go on with the next. */
async function verifyAll(context: CommandContext): Promise<readonly Json[]> {
  const { request, stream } = context;
  // Said once, and not of each repository: there is nothing to verify here, or not for this user.
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
  const damaged = copies.filter(isDamaged);
  const others = new Set(copies.flatMap((one) => (isDamaged(one) ? [] : [one['repository']])));
  const lost = damaged.filter(({ repository }) => !others.has(repository));
  const names = [
    ...new Set(lost.map((one) => `${plain(one['repository'])} (id ${plain(one['repositoryId'])})`)),
  ];
  const unreported = damaged.filter((copy) => 'unreported' in copy);
  const healed = (one: Json): boolean => !lost.includes(one) && !unreported.includes(one);
  const healing = damaged.filter(healed).length;
  const unread = copies.filter((copy) => 'unread' in copy).length;
  const all = copies.length;
  const said = [
    ...(healing === 0 ? [] : [`${healing} of ${all} copies are damaged and being healed`]),
    ...(names.length === 0
      ? []
      : [
          `damaged, and without another copy to be healed from: ${listed(names)}; docs/operations.md, "A damaged repository", says what to do`,
        ]),
    ...(unreported.length === 0
      ? []
      : [
          `that ${unreported.length} of ${all} copies are damaged could not be noted, so that nothing heals them: ${plain(unreported[0]?.['unreported'])}; verify them again`,
        ]),
    ...(unread === 0
      ? []
      : [`${unread} of ${all} copies could not be verified: PROBLEMS says why`]),
  ];
  if (said.length > 0) throw new CliError(said.join('; '));
}

function isDamaged({ problems }: Json): boolean {
  return Array.isArray(problems) && problems.length > 0;
}

/** Names in a sentence; beyond a few, how many more. */
function listed(names: readonly string[]): string {
  const more = names.length - maxNamed;
  return `${names.slice(0, maxNamed).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

/** Below the table, which has room for one of each copy. */
function allProblems({ repository, nodeId, problems }: Json): string {
  const lines = Array.isArray(problems) ? problems.map(plain) : [];
  const more = lines.length - maxShown;
  const said = [
    `${plain(repository)} on ${plain(nodeId)}:`,
    ...lines.slice(0, maxShown),
    ...(more > 0 ? [`and ${more} more (--json shows them)`] : []),
  ];
  return `\n${said.map((line) => `${printable(line)}\n`).join('')}`;
}

function firstProblem(problems: unknown, { unread }: Json): string {
  if (typeof unread === 'string') return `could not be verified: ${unread}`;
  if (!Array.isArray(problems) || problems.length === 0) return 'none';
  return `${problems.length}: ${plain(problems[0])}`;
}
