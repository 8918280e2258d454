import type { Command } from 'commander';
import type { Json } from '../api-client.js';
import { CliError } from '../cli-error.js';
import { deleteAt } from '../delete.js';
import { allRows, contextOf, field } from '../context.js';
import { noneOf } from '../list.js';
import { plain, size, table } from '../output.js';
import { collect, pathOf } from './repo.js';

interface Scoped {
  readonly server?: true;
}

interface RuleOptions extends Scoped {
  readonly refs?: string;
  readonly push?: string;
  readonly forcePush: boolean;
  readonly deletion: boolean;
  readonly linear?: true;
  readonly signed?: true;
  readonly maxFileSize?: string;
  readonly forbidPath: readonly string[];
  readonly message?: string;
  readonly exempt?: string;
}

export function addRuleCommands(program: Command): void {
  const rule = program.command('rule').description('branch rules: what a push may do to refs');

  rule
    .command('set')
    .usage('REPO|--server NAME --refs PATTERN [options]')
    .argument('<words...>', 'the repository (not with --server) and the name of the rule')
    .description('set a rule; one of the same name is replaced as a whole')
    .option('--server', 'for all repositories')
    .option('--refs <pattern>', 'refs/heads/main, refs/heads/release/*, **')
    .option(
      '--push <names>',
      'who may push there: ann,@release,oidc:ci,deploy-key:SHA256:...; "" for nobody (default: all writers)',
    )
    .option('--no-force-push', 'refuse what is no fast-forward')
    .option('--no-deletion', 'refuse deletion')
    .option('--linear', 'refuse merges')
    .option('--signed', 'refuse commits without a good signature by a registered key')
    .option('--max-file-size <size>', 'refuse larger files: 500k, 10m, 1g')
    .option(
      '--forbid-path <pattern>',
      'refuse paths: *.exe, secrets/**; may be repeated',
      collect,
      [],
    )
    .option('--message <expression>', 'regular expression that every commit message has to match')
    .option('--exempt <names>', 'whom it does not hold for: ann,@admins')
    .action(set);

  rule
    .command('list')
    .argument('[repo]')
    .description("list a repository's rules, or those for all repositories")
    .option('--server', 'for all repositories')
    .action(async (repo: string | undefined, options: Scoped, command: Command) => {
      const { terminal, request } = contextOf(command);
      const words = repo === undefined ? [] : [repo];
      const { path } = scoped(words, options, 0);
      const found = await allRows(request, `${path}/rules`, 'rules');
      if (terminal.json) return terminal.printJson(found);
      if (found.length === 0) return terminal.hint(noneOf('rules'));
      const shown = found.map((row) => ({ ...row, demands: demandsOf(row).join('; ') }));
      const columns = [
        { title: 'NAME', key: 'name' },
        { title: 'REFS', key: 'refs' },
        { title: 'DEMANDS', key: 'demands' },
      ];
      terminal.print(table(columns, shown));
    });

  rule
    .command('remove')
    .usage('REPO|--server NAME')
    .argument('<words...>', 'the repository (not with --server) and the name of the rule')
    .option('--server', 'for all repositories')
    .description('remove a rule')
    .action(async (words: string[], options: Scoped, command: Command) => {
      const { path, rest } = scoped(words, options, 1);
      const [name = ''] = rest;
      await deleteAt(command, `${path}/rules/${encodeURIComponent(name)}`, `removed rule ${name}`);
    });
}

async function set(words: string[], options: RuleOptions, command: Command): Promise<void> {
  const { terminal, request } = contextOf(command);
  const { path, rest } = scoped(words, options, 1);
  const [name = ''] = rest;
  if (options.refs === undefined) {
    throw new CliError('--refs is wanted: the refs that the rule is about', { exitCode: 2 });
  }
  const answer = await request('PUT', `${path}/rules/${encodeURIComponent(name)}`, {
    refs: options.refs,
    ...(options.push === undefined ? {} : { push: names(options.push) }),
    ...(options.forcePush ? {} : { noForcePush: true }),
    ...(options.deletion ? {} : { noDeletion: true }),
    ...(options.linear === true ? { linearHistory: true } : {}),
    ...(options.signed === true ? { signedCommits: true } : {}),
    ...(options.maxFileSize === undefined ? {} : { maxFileSize: bytes(options.maxFileSize) }),
    ...(options.forbidPath.length === 0 ? {} : { forbiddenPaths: options.forbidPath }),
    ...(options.message === undefined ? {} : { commitMessage: options.message }),
    ...(options.exempt === undefined ? {} : { exempt: names(options.exempt) }),
  });
  const rule = field(answer, 'rule');
  if (terminal.json) return terminal.printJson(rule);
  terminal.print(`set rule ${name} for ${plain(rule['refs'])}: ${demandsOf(rule).join('; ')}\n`);
}

/** `REPO WORD...`, or with --server `WORD...`: the path of the scope, and `count` words after it. */
export function scoped(
  words: readonly string[],
  { server }: Scoped,
  count: number,
): { readonly path: string; readonly rest: readonly string[] } {
  const rest = server === true ? words : words.slice(1);
  const [repo] = words;
  if (rest.length !== count || (server !== true && repo === undefined)) {
    throw new CliError('give a repository, or --server for all of them; see --help', {
      exitCode: 2,
    });
  }
  return { path: server === true ? '' : pathOf(repo ?? ''), rest };
}

function names(list: string): readonly string[] {
  return list
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
}

function bytes(text: string): number {
  const match = /^(\d{1,12})([kmg]?)$/i.exec(text);
  if (match === null) {
    throw new CliError(`"${text}" is no size: write 500k, 10m or 1g`, { exitCode: 2 });
  }
  const unit = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }[(match[2] ?? '').toLowerCase()] ?? 1;
  return Number(match[1]) * unit;
}

function demandsOf(rule: Json): readonly string[] {
  const push = list(rule['push']);
  const forbidden = list(rule['forbiddenPaths']);
  const exempt = list(rule['exempt']);
  return [
    ...(rule['push'] === undefined
      ? []
      : [push.length === 0 ? 'nobody pushes' : `only ${push.join(', ')} push`]),
    ...(rule['noForcePush'] === true ? ['no force push'] : []),
    ...(rule['noDeletion'] === true ? ['no deletion'] : []),
    ...(rule['linearHistory'] === true ? ['linear history'] : []),
    ...(rule['signedCommits'] === true ? ['signed commits'] : []),
    ...(rule['maxFileSize'] === undefined ? [] : [`files up to ${size(rule['maxFileSize'])}`]),
    ...(forbidden.length === 0 ? [] : [`not ${forbidden.join(', ')}`]),
    ...(rule['commitMessage'] === undefined ? [] : [`message ${plain(rule['commitMessage'])}`]),
    ...(exempt.length === 0 ? [] : [`but for ${exempt.join(', ')}`]),
  ];
}

function list(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.map(String) : [];
}
