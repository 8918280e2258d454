import type { Command } from 'commander';
import { CliError } from '../cli-error.js';
import { allRows, contextOf } from '../context.js';
import { printList } from '../list.js';
import { plain } from '../output.js';

export function addHostKeyCommands(program: Command): void {
  const hostKey = program.command('host-key').description('the keys by which SSH clients know it');

  hostKey
    .command('list')
    .description('list the host keys and the certificates that are offered for them')
    .action(async (_options: object, command: Command) => {
      await printList(command, {
        path: '/host-keys',
        rows: 'hostKeys',
        columns: [
          { title: 'TYPE', key: 'type' },
          { title: 'FINGERPRINT', key: 'fingerprint' },
          { title: 'CERTIFIED FOR', key: 'certificate', show: names },
          { title: 'UNTIL (UTC)', key: 'certificate', show: until },
          { title: 'PROBLEM', key: 'problem' },
        ],
      });
    });

  hostKey
    .command('show')
    .argument('<type>', 'ssh-ed25519, ecdsa-sha2-nistp256 or ssh-rsa, as in the list')
    .description('print a public host key: to be certified (ssh-keygen -h -s), or for known_hosts')
    .action(async (type: string, _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const found = await allRows(request, '/host-keys', 'hostKeys');
      const key = found.find((one) => one['type'] === type);
      if (key === undefined) {
        const types = found.map((one) => plain(one['type'])).join(', ');
        throw new CliError(`there is no host key of type ${type}: there are ${types}`);
      }
      if (terminal.json) return terminal.printJson(key);
      terminal.print(`${plain(key['publicKey'])}\n`);
    });
}

function names(certificate: unknown): string {
  if (typeof certificate !== 'object' || certificate === null) return '-';
  const { principals }: { readonly principals?: unknown } = certificate;
  if (!Array.isArray(principals)) return '-';
  return principals.length === 0 ? 'any name' : principals.map(String).join(',');
}

function until(certificate: unknown): string {
  if (typeof certificate !== 'object' || certificate === null) return '-';
  const { validUntil }: { readonly validUntil?: unknown } = certificate;
  return typeof validUntil === 'string' ? validUntil.replace('T', ' ').replace('Z', '') : 'forever';
}
