import type { Command } from 'commander';
import { CliError } from '../cli-error.js';
import { deleteAt } from '../delete.js';
import { contextOf, field } from '../context.js';
import { readInputText } from '../input-file.js';
import { ofUser, printList } from '../list.js';
import { plain, time } from '../output.js';

export function addSigningKeyCommands(program: Command): void {
  const key = program
    .command('signing-key')
    .description('OpenPGP keys that commits are signed with (SSH keys count anyway)');

  key
    .command('add')
    .argument('<user>')
    .argument('<file>', 'what gpg --export --armor writes; - for stdin')
    .description('register a public key of a user')
    .action(async (user: string, file: string, _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const text = await readInputText(file, terminal);
      if (text.includes('PRIVATE KEY BLOCK')) {
        throw new CliError(`${file} holds a private key: give what gpg --export writes`);
      }
      const added = field(
        await request('POST', '/signing-keys', { user, key: text }),
        'signingKey',
      );
      if (terminal.json) return terminal.printJson(added);
      terminal.print(`added signing key ${plain(added['fingerprint'])} to ${user}\n`);
    });

  key
    .command('list')
    .argument('[user]', 'default: yours; all for an administrator')
    .description('list registered keys')
    .action(async (user: string | undefined, _options: object, command: Command) => {
      await printList(command, {
        path: ofUser('/signing-keys', user),
        rows: 'signingKeys',
        columns: [
          { title: 'ID', key: 'fingerprint' },
          { title: 'USER', key: 'user' },
          { title: 'ADDED (UTC)', key: 'createdAt', show: time },
        ],
      });
    });

  key
    .command('remove')
    .argument('<id>', 'as in the list')
    .description('remove a registered key')
    .action(async (id: string, _options: object, command: Command) => {
      await deleteAt(
        command,
        `/signing-keys/${encodeURIComponent(id)}`,
        `removed signing key ${id}`,
      );
    });
}
