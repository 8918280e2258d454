import type { Command } from 'commander';
import { settingDefinitions } from '../../../backends/contract/settings.js';
import { CliError } from '../cli-error.js';
import { contextOf, field } from '../context.js';
import { printList } from '../list.js';
import { plain } from '../output.js';
import { assignments, collect, pathOf } from './repo.js';

export function addRepositoryAccessCommands(repo: Command): void {
  repo
    .command('set')
    .argument('<name>')
    .argument('[settings...]', "KEY=VALUE, under git's names")
    .description('change settings, visibility or default branch')
    .option('--unset <key>', 'back to the default; may be repeated', collect, [])
    .option('--public', 'let everybody read it')
    .option('--private', 'let only those read it who have a grant')
    .option('--default-branch <branch>', 'the branch that HEAD names')
    .addHelpText('after', settingsHelp)
    .action(set);

  addGrantCommands(repo);
}

function addGrantCommands(repo: Command): void {
  repo
    .command('grant')
    .argument('<name>', "a repository, or a pattern with *: 'team/*' (quote it)")
    .argument('<who>', 'a user, or a group as @NAME')
    .argument('<level>', 'read, write or admin')
    .description('let a user or a group read, write or administer repositories')
    .action(
      async (name: string, who: string, level: string, _options: object, command: Command) => {
        const { terminal, request } = contextOf(command);
        const answer = await request('PUT', grantPath(name, who), { level });
        if (terminal.json) return terminal.printJson(field(answer, resultOf(name)));
        terminal.print(`granted ${level} on ${name} to ${who}\n`);
      },
    );

  repo
    .command('revoke')
    .argument('<name>', 'a repository or a pattern, as it was granted')
    .argument('<who>', 'a user, or a group as @NAME')
    .description('take a grant back')
    .action(async (name: string, who: string, _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const answer = await request('DELETE', grantPath(name, who));
      if (terminal.json) {
        return terminal.printJson(isPattern(name) ? answer : field(answer, 'repository'));
      }
      terminal.print(`revoked the grant of ${who} on ${name}\n`);
    });

  repo
    .command('grants')
    .description('list the grants on patterns; those on one repository: repo show NAME')
    .action(async (_options: object, command: Command) => {
      await printList(command, {
        path: '/grants',
        rows: 'grants',
        columns: [
          { title: 'REPOSITORIES', key: 'pattern' },
          { title: 'WHO', key: 'subject' },
          { title: 'LEVEL', key: 'level' },
        ],
      });
    });
}

/** No repository's name has a star in it. */
function isPattern(name: string): boolean {
  return name.includes('*');
}

function grantPath(name: string, who: string): string {
  const subject = encodeURIComponent(who);
  return isPattern(name)
    ? `/grants/${encodeURIComponent(name)}/${subject}`
    : `${pathOf(name)}/grants/${subject}`;
}

function resultOf(name: string): string {
  return isPattern(name) ? 'grant' : 'repository';
}

interface SetOptions {
  readonly unset: readonly string[];
  readonly public?: true;
  readonly private?: true;
  readonly defaultBranch?: string;
}

async function set(
  name: string,
  words: readonly string[],
  options: SetOptions,
  command: Command,
): Promise<void> {
  const settings = {
    ...assignments(words),
    ...Object.fromEntries(options.unset.map((key) => [key, null])),
  };
  if (options.public === true && options.private === true) {
    throw new CliError('--public and --private contradict each other', { exitCode: 2 });
  }
  const visible = options.public ?? (options.private === true ? false : undefined);
  const changes = {
    ...(Object.keys(settings).length === 0 ? {} : { settings }),
    ...(visible === undefined ? {} : { public: visible }),
  };
  const changesRecord = Object.keys(changes).length > 0;
  if (!changesRecord && options.defaultBranch === undefined) {
    throw new CliError(
      'nothing to set: give KEY=VALUE, --unset, --public, --private or --default-branch',
      {
        exitCode: 2,
      },
    );
  }
  const { terminal, request } = contextOf(command);
  let result = {};
  if (changesRecord) {
    const answer = await request('PATCH', pathOf(name), changes);
    result = field(answer, 'repository');
  }
  if (options.defaultBranch !== undefined) {
    const answer = await request('PUT', `${pathOf(name)}/head`, {
      branch: options.defaultBranch,
    });
    result = { ...result, name, head: plain(answer['head']) };
  }
  if (terminal.json) return terminal.printJson(result);
  terminal.print(`changed ${name}\n`);
}

function settingsHelp(): string {
  const width = Math.max(...Object.keys(settingDefinitions).map((key) => key.length)) + 2;
  const lines = Object.entries(settingDefinitions).map(([key, definition]) => {
    const value = definition.default === '' ? 'empty' : definition.default;
    return `  ${key.padEnd(width)}${definition.help} (${value})`;
  });
  return `\nSettings (default):\n${lines.join('\n')}`;
}
