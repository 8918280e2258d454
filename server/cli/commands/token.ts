import type { Command } from 'commander';
import { CliError } from '../cli-error.js';
import { deleteAt } from '../delete.js';
import { contextOf, field } from '../context.js';
import { ofUser, printList } from '../list.js';
import { parseDuration } from '../duration.js';
import { plain, time } from '../output.js';

interface CreateOptions {
  readonly name?: string;
  readonly expires?: string;
  readonly scope: string;
  readonly repo?: string;
}

export function addTokenCommands(program: Command): void {
  const token = program.command('token').description('access tokens, for HTTP and this program');

  token
    .command('create')
    .argument('<user>')
    .description('create a token and print it alone on stdout; it is shown this once')
    .option('--name <name>', 'what it is for, shown in lists')
    .option('--expires <duration>', 'when it ends: 12h, 30d, 4w, 1y (default: never)')
    .option('--scope <scope>', 'what it may do: read, write or admin', 'write')
    .option('--repo <pattern>', 'only repositories that match: team/app, team/*')
    .action(async (user: string, options: CreateOptions, command: Command) => {
      const { terminal, request } = contextOf(command);
      const body = {
        user,
        scope: options.scope,
        ...(options.name === undefined ? {} : { name: options.name }),
        ...(options.repo === undefined ? {} : { repositoryPattern: options.repo }),
        ...(options.expires === undefined
          ? {}
          : { expiresInSeconds: parseDuration(options.expires) }),
      };
      const answer = await request('POST', '/tokens', body);
      const { secret } = answer;
      if (typeof secret !== 'string') throw new CliError('the server answered without a token');
      if (terminal.json) return terminal.printJson({ ...field(answer, 'token'), secret });
      terminal.print(`${secret}\n`);
    });

  token
    .command('list')
    .argument('[user]', 'default: yours; all for an administrator')
    .description('list tokens, without their secrets')
    .action(async (user: string | undefined, _options: object, command: Command) => {
      await printList(command, {
        path: ofUser('/tokens', user),
        rows: 'tokens',
        columns: [
          { title: 'ID', key: 'id' },
          { title: 'USER', key: 'user' },
          { title: 'SCOPE', key: 'scope' },
          {
            title: 'REPOSITORIES',
            key: 'repositoryPattern',
            show: (v: unknown) => plain(v ?? 'all'),
          },
          {
            title: 'EXPIRES (UTC)',
            key: 'expiresAt',
            show: (v: unknown) => (v === null ? 'never' : time(v)),
          },
          {
            title: 'LAST USED (UTC)',
            key: 'lastUsedAt',
            show: (v: unknown) => (v === null ? 'never' : time(v)),
          },
          { title: 'NAME', key: 'name' },
        ],
      });
    });

  token
    .command('revoke')
    .argument('<id>', 'as in the list')
    .description('end a token')
    .action(async (id: string, _options: object, command: Command) => {
      await deleteAt(command, `/tokens/${encodeURIComponent(id)}`, `revoked ${id}`);
    });
}
