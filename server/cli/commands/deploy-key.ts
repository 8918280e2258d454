import type { Command } from 'commander';
import { contextOf, field } from '../context.js';
import { deleteAt } from '../delete.js';
import { printList } from '../list.js';
import { plain, time } from '../output.js';
import { readPublicKey } from './key.js';
import { pathOf } from './repo.js';

export function addDeployKeyCommands(program: Command): void {
  const deployKey = program
    .command('deploy-key')
    .description('SSH keys of machines, each bound to one repository');

  deployKey
    .command('add')
    .argument('<repo>')
    .argument('<file>', 'public key file, or - for stdin')
    .option('--write', 'let it push too')
    .description('let a machine fetch a repository with this key')
    .action(async (repo: string, file: string, options: { write?: true }, command: Command) => {
      const { terminal, request } = contextOf(command);
      const key = await readPublicKey(file, terminal);
      const write = options.write ?? false;
      const answer = await request('POST', `${pathOf(repo)}/deploy-keys`, { key, write });
      const added = field(answer, 'deployKey');
      if (terminal.json) return terminal.printJson(added);
      terminal.print(`added ${plain(added['fingerprint'])} to ${repo}\n`);
    });

  deployKey
    .command('list')
    .argument('<repo>')
    .description('list the deploy keys of a repository')
    .action(async (repo: string, _options: object, command: Command) => {
      await printList(command, {
        path: `${pathOf(repo)}/deploy-keys`,
        rows: 'deployKeys',
        columns: [
          { title: 'FINGERPRINT', key: 'fingerprint' },
          { title: 'WRITE', key: 'write' },
          { title: 'TYPE', key: 'type' },
          { title: 'ADDED (UTC)', key: 'createdAt', show: time },
          { title: 'COMMENT', key: 'comment' },
        ],
      });
    });

  deployKey
    .command('remove')
    .argument('<repo>')
    .argument('<fingerprint>', 'SHA256:... as in the list')
    .description('remove a deploy key')
    .action(async (repo: string, fingerprint: string, _options: object, command: Command) => {
      const path = `${pathOf(repo)}/deploy-keys/${encodeURIComponent(fingerprint)}`;
      await deleteAt(command, path, `removed ${fingerprint}`);
    });
}
