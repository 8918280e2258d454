import type { Command } from 'commander';
import { CliError } from '../cli-error.js';
import { contextOf, field } from '../context.js';
import { deleteAt } from '../delete.js';
import { printList } from '../list.js';
import { plain, time } from '../output.js';
import { readPublicKey } from './key.js';

export function addCertificateCommands(program: Command): void {
  const ca = program.command('ca').description('authorities that certify the SSH keys of users');

  ca.command('add')
    .argument('<file>', "the authority's public key file, or - for stdin")
    .description('let in whom this authority certifies (ssh-keygen -s), by principal')
    .action(async (file: string, _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const key = await readPublicKey(file, terminal);
      const added = field(await request('POST', '/certificate-authorities', { key }), 'authority');
      if (terminal.json) return terminal.printJson(added);
      terminal.print(`added certificate authority ${plain(added['fingerprint'])}\n`);
    });

  ca.command('list')
    .description('list the authorities')
    .action(async (_options: object, command: Command) => {
      await printList(command, {
        path: '/certificate-authorities',
        rows: 'authorities',
        columns: [
          { title: 'FINGERPRINT', key: 'fingerprint' },
          { title: 'TYPE', key: 'type' },
          { title: 'ADDED (UTC)', key: 'createdAt', show: time },
          { title: 'COMMENT', key: 'comment' },
        ],
      });
    });

  ca.command('remove')
    .argument('<fingerprint>', 'SHA256:... as in the list')
    .description('refuse the certificates of an authority from now on')
    .action(async (fingerprint: string, _options: object, command: Command) => {
      const path = `/certificate-authorities/${encodeURIComponent(fingerprint)}`;
      await deleteAt(command, path, `removed ${fingerprint}`);
    });

  addRevocationCommands(ca);
}

interface RevokeOptions {
  readonly serial?: string;
  readonly authority?: string;
  readonly keyId?: string;
  readonly key?: string;
}

function addRevocationCommands(ca: Command): void {
  ca.command('revoke')
    .description('refuse certificates: by serial number, key id or key')
    .option('--serial <number>', 'with --authority: the one of this serial number')
    .option('--authority <fingerprint>', 'whose serial number it is')
    .option('--key-id <id>', 'those with this key id (ssh-keygen -I)')
    .option('--key <fingerprint>', 'those for this key, SHA256:...')
    .action(async (options: RevokeOptions, command: Command) => {
      const { terminal, request } = contextOf(command);
      const added = field(await request('POST', '/revocations', revoked(options)), 'revocation');
      if (terminal.json) return terminal.printJson(added);
      terminal.print(`revoked ${plain(added['kind'])} ${plain(added['value'])}\n`);
    });

  ca.command('revocations')
    .description('list what is revoked')
    .action(async (_options: object, command: Command) => {
      await printList(command, {
        path: '/revocations',
        rows: 'revocations',
        columns: [
          { title: 'ID', key: 'id' },
          { title: 'KIND', key: 'kind' },
          { title: 'VALUE', key: 'value' },
          { title: 'AUTHORITY', key: 'authority' },
          { title: 'REVOKED (UTC)', key: 'createdAt', show: time },
        ],
      });
    });

  ca.command('unrevoke')
    .argument('<id>', 'as in the list of revocations')
    .description('take a revocation back')
    .action(async (id: string, _options: object, command: Command) => {
      await deleteAt(command, `/revocations/${encodeURIComponent(id)}`, `took back ${id}`);
    });
}

function revoked({ serial, authority, keyId, key }: RevokeOptions): Record<string, string> {
  const given = [serial, keyId, key].filter((value) => value !== undefined);
  if (given.length !== 1 || (serial !== undefined) !== (authority !== undefined)) {
    throw new CliError('give one of --serial (with --authority), --key-id and --key', {
      exitCode: 2,
    });
  }
  if (serial !== undefined) {
    return { kind: 'serial', value: serial, authority: authority ?? '' };
  }
  return keyId === undefined ? { kind: 'key', value: key ?? '' } : { kind: 'key-id', value: keyId };
}
