import type { Command } from 'commander';
import { CliError } from '../cli-error.js';
import { contextOf, field } from '../context.js';
import { deleteAt } from '../delete.js';
import { readInputText } from '../input-file.js';
import { ofUser, printList } from '../list.js';
import { plain, time } from '../output.js';
import type { Terminal } from '../terminal.js';

export function addKeyCommands(program: Command): void {
  const key = program.command('key').description('SSH public keys');

  key
    .command('add')
    .argument('<user>')
    .argument('<file>', 'public key file (~/.ssh/id_ed25519.pub), or - for stdin')
    .description('add a public key to a user')
    .action(async (user: string, file: string, _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const line = await readPublicKey(file, terminal);
      const answer = await request('POST', '/keys', { user, key: line });
      const added = field(answer, 'key');
      if (terminal.json) return terminal.printJson(added);
      terminal.print(`added ${plain(added['fingerprint'])} to ${user}\n`);
    });

  key
    .command('list')
    .argument('[user]', 'default: yours; all for an administrator')
    .description('list public keys')
    .action(async (user: string | undefined, _options: object, command: Command) => {
      await printList(command, {
        path: ofUser('/keys', user),
        rows: 'keys',
        columns: [
          { title: 'FINGERPRINT', key: 'fingerprint' },
          { title: 'USER', key: 'user' },
          { title: 'TYPE', key: 'type' },
          { title: 'ADDED (UTC)', key: 'createdAt', show: time },
          { title: 'COMMENT', key: 'comment' },
        ],
      });
    });

  key
    .command('remove')
    .argument('<fingerprint>', 'SHA256:... as in the list')
    .description('remove a public key')
    .action(async (fingerprint: string, _options: object, command: Command) => {
      const path = `/keys/${encodeURIComponent(fingerprint)}`;
      await deleteAt(command, path, `removed ${fingerprint}`);
    });
}

/** The one public key in a file, or in stdin for `-`. */
export async function readPublicKey(file: string, terminal: Terminal): Promise<string> {
  return publicKeyIn(await readInputText(file, terminal), file);
}

/** The one key in a public key file. A private key is not sent anywhere. */
function publicKeyIn(text: string, file: string): string {
  const place = file === '-' ? 'stdin' : file;
  if (text.includes('PRIVATE KEY-----')) {
    throw new CliError(`${place} holds a private key: give the public one (usually ${place}.pub)`);
  }
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  const [line] = lines;
  if (line === undefined || lines.length > 1) {
    throw new CliError(`${place} holds ${lines.length} keys: give one at a time`);
  }
  return line;
}
