import type { Command } from 'commander';
import type { Json } from '../api-client.js';
import { CliError } from '../cli-error.js';
import { deleteAt } from '../delete.js';
import { contextOf, field, rows } from '../context.js';
import { noneOf } from '../list.js';
import { facts, plain, size, table } from '../output.js';

interface ScopeOptions {
  readonly owner?: boolean;
}

export function addQuotaCommands(program: Command): void {
  const quota = program
    .command('quota')
    .description(
      'limits of stored bytes, of a repository, or of an owner: the first segment of names of repositories',
    );

  quota
    .command('set')
    .argument('<name>', 'a repository, or with --owner an owner')
    .argument('<size>', '500m, 10g, 2t')
    .option('--owner', 'the quota is for all repositories of the owner together')
    .description('set a quota, or another one')
    .action(async (name: string, text: string, options: ScopeOptions, command: Command) => {
      const { terminal, request } = contextOf(command);
      const answer = await request('PUT', pathOf(name, options), { bytes: bytesOf(text) });
      const set = field(answer, 'quota');
      if (terminal.json) return terminal.printJson(set);
      terminal.print(
        `${plain(set['kind'])} ${name} may store ${size(set['quotaBytes'])}, and stores ${size(set['usedBytes'])}\n`,
      );
    });

  quota
    .command('show')
    .argument('<name>', 'a repository, or with --owner an owner')
    .option('--owner', 'of an owner')
    .description('show a quota and what is used, measured now')
    .action(async (name: string, options: ScopeOptions, command: Command) => {
      const { terminal, request } = contextOf(command);
      const shown = field(await request('GET', pathOf(name, options)), 'quota');
      if (terminal.json) return terminal.printJson(shown);
      terminal.print(
        facts([
          [plain(shown['kind']), name],
          ['quota', quotaText(shown['quotaBytes'])],
          ['used', size(shown['usedBytes'])],
          ['state', shown['state']],
        ]),
      );
    });

  quota
    .command('list')
    .description('list all quotas')
    .action(async (_options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const { found, last } = await allQuotas(request);
      if (terminal.json) return terminal.printJson(found);
      const columns = [
        { title: 'OF', key: 'kind' },
        { title: 'NAME', key: 'name' },
        { title: 'QUOTA', key: 'quotaBytes', show: size },
        { title: 'USED', key: 'usedBytes', show: size },
        { title: 'STATE', key: 'state' },
      ];
      if (found.length === 0) terminal.hint(noneOf('quotas'));
      else terminal.print(table(columns, found));
      terminal.hint(
        `promised: ${size(last['promisedBytes'])} of ${size(last['mayPromiseBytes'])} (quota.overcommit)`,
      );
    });

  quota
    .command('remove')
    .argument('<name>', 'a repository, or with --owner an owner')
    .option('--owner', 'of an owner')
    .description('remove a quota')
    .action(async (name: string, options: ScopeOptions, command: Command) => {
      await deleteAt(command, pathOf(name, options), `removed the quota of ${name}`);
    });
}

type Request = (method: 'GET', path: string) => Promise<Json>;

async function allQuotas(
  request: Request,
): Promise<{ readonly found: readonly Json[]; readonly last: Json }> {
  const found: Json[] = [];
  let after = '';
  for (;;) {
    const last = await request('GET', `/quotas?limit=1000${after}`);
    found.push(...rows(last, 'quotas'));
    const { next } = last;
    if (typeof next !== 'string') return { found, last };
    after = `&after=${encodeURIComponent(next)}`;
  }
}

function pathOf(name: string, { owner }: ScopeOptions): string {
  return owner === true
    ? `/owners/${encodeURIComponent(name)}/quota`
    : `/repositories/${encodeURIComponent(name)}/quota`;
}

function quotaText(bytes: unknown): string {
  return bytes === null ? 'none' : size(bytes);
}

function bytesOf(text: string): number {
  const match = /^(\d{1,12})([kmgt]?)$/i.exec(text);
  if (match === null) {
    throw new CliError(`"${text}" is no size: write 500m, 10g or 2t`, { exitCode: 2 });
  }
  const power = { '': 0, k: 1, m: 2, g: 3, t: 4 }[(match[2] ?? '').toLowerCase()] ?? 0;
  return Number(match[1]) * 1024 ** power;
}
