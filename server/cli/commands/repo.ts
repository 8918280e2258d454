import { type Command, Option } from 'commander';
import type { Json } from '../api-client.js';
import { CliError } from '../cli-error.js';
import { contextOf, field, rows } from '../context.js';
import { noneOf } from '../list.js';
import { facts, plain, size, table, time } from '../output.js';

/** Repositories in one request of a list. */
const pageSize = 1000;

export function addRepositoryCommands(repo: Command): void {
  repo
    .command('create')
    .argument('<name>', 'like team/app')
    .description('create an empty repository')
    .option('--public', 'let everybody read it')
    .option('--default-branch <branch>', 'the branch that HEAD names', 'main')
    .option('--set <key=value>', 'a setting; may be repeated', collect, [])
    .addOption(new Option('--object-format <format>').choices(['sha1', 'sha256']).default('sha1'))
    .action(create);

  repo
    .command('fork')
    .argument('<name>', 'what to fork')
    .argument('<new-name>', 'like ann/app')
    .description('make a repository with the content of another, at once and without a copy')
    .option('--public', 'let everybody read the fork')
    .action(fork);

  repo
    .command('show')
    .argument('<name>')
    .description('show a repository, its access and settings')
    .action(show);

  repo
    .command('list')
    .description('list the repositories that you may read')
    .option('--prefix <prefix>', 'only names that start so')
    .action(list);

  repo
    .command('rename')
    .argument('<name>')
    .argument('<new-name>')
    .description('give a repository another name')
    .action(async (name: string, newName: string, _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const answer = await request('POST', `${pathOf(name)}/rename`, { name: newName });
      const renamed = field(answer, 'repository');
      if (terminal.json) return terminal.printJson(renamed);
      terminal.print(`renamed ${name} to ${plain(renamed['name'])}\n`);
    });

  repo
    .command('delete')
    .argument('<name>')
    .description('delete a repository and all it holds')
    .option('-y, --yes', 'do not ask')
    .action(remove);
}

interface CreateOptions {
  readonly public?: true;
  readonly defaultBranch: string;
  readonly set: readonly string[];
  readonly objectFormat: string;
}

async function create(name: string, options: CreateOptions, command: Command): Promise<void> {
  const { terminal, request } = contextOf(command);
  const answer = await request('POST', '/repositories', {
    name,
    public: options.public ?? false,
    defaultBranch: options.defaultBranch,
    objectFormat: options.objectFormat,
    settings: assignments(options.set),
  });
  const created = field(answer, 'repository');
  if (terminal.json) terminal.printJson(created);
  else terminal.print(`created ${plain(created['name'])}\n`);
}

async function fork(
  name: string,
  newName: string,
  options: { readonly public?: true },
  command: Command,
): Promise<void> {
  const { terminal, request } = contextOf(command);
  const answer = await request('POST', `${pathOf(name)}/fork`, {
    name: newName,
    public: options.public ?? false,
  });
  const forked = field(answer, 'repository');
  if (terminal.json) terminal.printJson(forked);
  else terminal.print(`forked ${name} as ${plain(forked['name'])}\n`);
}

async function show(name: string, _options: object, command: Command): Promise<void> {
  const { terminal, request } = contextOf(command);
  const shown = field(await request('GET', pathOf(name)), 'repository');
  if (terminal.json) return terminal.printJson(shown);
  terminal.print(
    facts([
      ['name', shown['name']],
      ['id', shown['id']],
      ['visibility', shown['public'] === true ? 'public' : 'private'],
      ['HEAD', shown['head']],
      ['refs', shown['refCount']],
      ['packs', shown['packCount']],
      ['loose objects', shown['looseObjectCount']],
      ['size', size(shown['sizeBytes'])],
      ...sharing(shown),
      ['object format', shown['objectFormat']],
      ['generation', shown['generation']],
      ['created (UTC)', time(shown['createdAt'])],
      ...pairs(shown['grants']).map(([user, level]) => [`grant ${user}`, level] as const),
      ...pairs(shown['settings']),
    ]),
  );
}

function sharing(shown: Json): readonly (readonly [string, unknown])[] {
  if (shown['sharedBytes'] === 0) return [];
  return [
    ['shared', `${size(shown['sharedBytes'])} by ${plain(shown['sharedBy'])} repositories`],
    ['saved', size(shown['savedBytes'])],
  ];
}

async function list(options: { readonly prefix?: string }, command: Command): Promise<void> {
  const { terminal, request } = contextOf(command);
  const found: Json[] = [];
  let after: unknown;
  do {
    const query = new URLSearchParams({ limit: String(pageSize) });
    if (options.prefix !== undefined) query.set('prefix', options.prefix);
    if (typeof after === 'string') query.set('after', after);
    const page = await request('GET', `/repositories?${query.toString()}`);
    found.push(...rows(page, 'repositories'));
    after = page['next'];
  } while (typeof after === 'string');
  if (terminal.json) return terminal.printJson(found);
  if (found.length === 0) return terminal.hint(noneOf('repositories'));
  const columns = [
    { title: 'NAME', key: 'name' },
    {
      title: 'VISIBILITY',
      key: 'public',
      show: (v: unknown) => (v === true ? 'public' : 'private'),
    },
    { title: 'CREATED (UTC)', key: 'createdAt', show: time },
  ];
  terminal.print(table(columns, found));
}

async function remove(
  name: string,
  options: { readonly yes?: true },
  command: Command,
): Promise<void> {
  const { terminal, request } = contextOf(command);
  if (options.yes !== true) {
    const sure = await terminal.confirm(`Delete ${name} and all it holds?`);
    if (sure === undefined) {
      throw new CliError(`not deleting ${name} without being sure: add --yes`);
    }
    if (!sure) throw new CliError(`${name} was not deleted`);
  }
  const answer = await request('DELETE', pathOf(name));
  if (terminal.json) return terminal.printJson(answer);
  terminal.print(`deleted ${plain(answer['deleted'])}\n`);
  if (answer['cleanUp'] === 'goes on') {
    terminal.hint(
      'its deploy keys, rules, hooks and quota could not all be removed yet; the server tries again',
    );
  }
}

/** The API's path of a repository: its name is one segment. */
export function pathOf(name: string): string {
  return `/repositories/${encodeURIComponent(name)}`;
}

/** `KEY=VALUE` words as an object. */
export function assignments(words: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    words.map((word) => {
      const equals = word.indexOf('=');
      if (equals <= 0) throw new CliError(`"${word}" is not KEY=VALUE`, { exitCode: 2 });
      return [word.slice(0, equals), word.slice(equals + 1)];
    }),
  );
}

export function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

function pairs(value: unknown): readonly (readonly [string, unknown])[] {
  return typeof value === 'object' && value !== null ? Object.entries(value) : [];
}
