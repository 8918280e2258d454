import type { Command } from 'commander';
import { contextOf, field } from '../context.js';
import { deleteAt } from '../delete.js';
import { readInputFile } from '../input-file.js';
import { printList } from '../list.js';
import { plain, size, time } from '../output.js';
import { scoped } from './rule.js';

interface Scoped {
  readonly server?: true;
}

const forAll = ['--server', 'for all repositories'] as const;
const where = 'the repository (not with --server), and pre-receive, update or post-receive';

export function addHookCommands(program: Command): void {
  const hook = program
    .command('hook')
    .description("git's hooks: programs that the server runs in a push's way");

  hook
    .command('set')
    .usage('REPO|--server STAGE FILE')
    .argument('<words...>', `${where}, and an executable file or script (- for stdin)`)
    .description('set a hook; it runs as the system user of the server')
    .option(...forAll)
    .action(async (words: string[], options: Scoped, command: Command) => {
      const { terminal, request } = contextOf(command);
      const { path, rest } = scoped(words, options, 2);
      const [stage = '', file = ''] = rest;
      const content =
        file === '-' ? Buffer.from(await terminal.readInput()) : await readInputFile(file);
      const answer = await request('PUT', `${path}/hooks/${encodeURIComponent(stage)}`, {
        content: content.toString('base64'),
      });
      const set = field(answer, 'hook');
      if (terminal.json) return terminal.printJson(set);
      terminal.print(`set ${stage} hook, version ${plain(set['version'])}\n`);
    });

  hook
    .command('list')
    .argument('[repo]')
    .description("list a repository's hooks, or those for all repositories")
    .option(...forAll)
    .action(async (repo: string | undefined, options: Scoped, command: Command) => {
      const { path } = scoped(repo === undefined ? [] : [repo], options, 0);
      await printList(command, {
        path: `${path}/hooks`,
        rows: 'hooks',
        columns: [
          { title: 'STAGE', key: 'stage' },
          { title: 'VERSION', key: 'version' },
          { title: 'SIZE', key: 'sizeBytes', show: size },
          { title: 'SET (UTC)', key: 'at', show: time },
          { title: 'BY', key: 'by' },
          { title: 'SHA-256', key: 'digest', show: (v: unknown) => plain(v).slice(0, 12) },
        ],
      });
    });

  hook
    .command('show')
    .usage('REPO|--server STAGE')
    .argument('<words...>', where)
    .description('print a hook')
    .option(...forAll)
    .action(async (words: string[], options: Scoped, command: Command) => {
      const { terminal, request } = contextOf(command);
      const { path, rest } = scoped(words, options, 1);
      const answer = await request('GET', `${path}/hooks/${encodeURIComponent(rest[0] ?? '')}`);
      const shown = field(answer, 'hook');
      if (terminal.json) return terminal.printJson(shown);
      terminal.print(Buffer.from(plain(shown['content']), 'base64').toString('utf8'));
    });

  hook
    .command('remove')
    .usage('REPO|--server STAGE')
    .argument('<words...>', where)
    .description('remove a hook')
    .option(...forAll)
    .action(async (words: string[], options: Scoped, command: Command) => {
      const { path, rest } = scoped(words, options, 1);
      const [stage = ''] = rest;
      await deleteAt(
        command,
        `${path}/hooks/${encodeURIComponent(stage)}`,
        `removed ${stage} hook`,
      );
    });
}
