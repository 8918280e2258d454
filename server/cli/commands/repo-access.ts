import type { Command } from 'commander';
import { settingDefinitions } from '../../../backends/contract/settings.js';
import { CliError } from '../cli-error.js';
import { contextOf, field } from '../context.js';
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

  repo
    .command('grant')
    .argument('<name>')
    .argument('<user>')
    .argument('<level>', 'read, write or admin')
    .description('let a user read, write or administer a repository')
    .action(
      async (name: string, user: string, level: string, _options: object, command: Command) => {
        const { terminal, request } = contextOf(command);
        const path = `${pathOf(name)}/grants/${encodeURIComponent(user)}`;
        const answer = await request('PUT', path, { level });
        if (terminal.json) return terminal.printJson(field(answer, 'repository'));
        terminal.print(`granted ${level} on ${name} to ${user}\n`);
      },
    );

  repo
    .command('revoke')
    .argument('<name>')
    .argument('<user>')
    .description('take a grant back')
    .action(async (name: string, user: string, _options: object, command: Command) => {
      const { terminal, request } = contextOf(command);
      const path = `${pathOf(name)}/grants/${encodeURIComponent(user)}`;
      const answer = await request('DELETE', path);
      if (terminal.json) return terminal.printJson(field(answer, 'repository'));
      terminal.print(`revoked the grant of ${user} on ${name}\n`);
    });
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
