import type { Command } from 'commander';
import { contextOf } from '../context.js';
import { duration, facts, plain, size } from '../output.js';
import { pathOf } from './repo.js';

/** Long-running work on repositories. */
export function addRepositoryWorkCommands(repo: Command): void {
  repo
    .command('import')
    .argument('<name>')
    .argument('<source>', 'http, https, git or ssh URL; or an absolute path on the server')
    .description('fill a new or empty repository from another one, with all its refs')
    .option('--public', 'let everybody read it, when it is new')
    .action(async (name: string, source: string, options: { public?: true }, command: Command) => {
      const { terminal, stream } = contextOf(command);
      const result = await stream(`${pathOf(name)}/import`, {
        source,
        ...(options.public === true ? { public: true } : {}),
      });
      if (terminal.json) return terminal.printJson(result);
      const what = result['refs'] === 1 ? 'ref' : 'refs';
      terminal.print(`imported ${plain(result['refs'])} ${what} into ${name}\n`);
    });

  repo
    .command('maintain')
    .argument('<name>')
    .description('repack, pack refs and prune now')
    .action(async (name: string, _options: object, command: Command) => {
      const { terminal, stream } = contextOf(command);
      const report = await stream(`${pathOf(name)}/maintain`);
      if (terminal.json) return terminal.printJson(report);
      terminal.print(
        facts([
          ['packs', `${plain(report['packsBefore'])} -> ${plain(report['packsAfter'])}`],
          ['size', `${size(report['sizeBytesBefore'])} -> ${size(report['sizeBytesAfter'])}`],
          ['took', duration(report['durationMs'])],
        ]),
      );
    });
}
