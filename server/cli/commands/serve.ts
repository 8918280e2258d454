import { type Command, Option } from 'commander';
import { flagArgument, type SettingName, settingEntries } from '../../config-table.js';
import { globalOptions } from '../context.js';
import { collect } from './repo.js';

/** What `quorate serve` was given on the command line; `server/config.ts` makes a configuration of it. */
export interface ServeArguments {
  readonly file: string | undefined;
  readonly flags: Readonly<Partial<Record<SettingName, string | boolean>>>;
  readonly set: readonly string[];
}

/** Runs the server until it is told to stop; resolves with the exit status. */
export type Serve = (given: ServeArguments) => Promise<number>;

export interface ServeParts {
  readonly serve: Serve;
  /** Gets the exit status. */
  readonly finish: (exitCode: number) => void;
}

export function addServeCommand(program: Command, { serve, finish }: ServeParts): void {
  const command = program
    .command('serve')
    .description('run the server')
    .option('--config <file>', 'configuration file')
    .option('--set <key=value>', 'any setting; may be repeated', collect, []);
  const byAttribute = new Map<string, SettingName>();
  for (const [key, setting] of settingEntries) {
    // `--data` is an option of every command.
    if (setting.flag === undefined || key === 'data') continue;
    const option = new Option(flagSyntax(setting.flag, flagArgument(setting)), setting.help);
    byAttribute.set(option.attributeName(), key);
    command.addOption(option);
  }
  command.action(async (options: Readonly<Record<string, unknown>>) => {
    const flags: Partial<Record<SettingName, string | boolean>> = {};
    const { data } = globalOptions(command);
    if (data !== undefined) flags.data = data;
    for (const [attribute, key] of byAttribute) {
      const value = options[attribute];
      // `--no-x` is `x: false` to commander, and a setting that is on to us.
      if (key === 'noAuth') {
        if (value === false) flags[key] = true;
      } else if (typeof value === 'string' || typeof value === 'boolean') {
        flags[key] = value;
      }
    }
    const { config, set } = options;
    finish(
      await serve({
        file: typeof config === 'string' ? config : undefined,
        flags,
        set: Array.isArray(set) ? set.map(String) : [],
      }),
    );
  });
}

function flagSyntax(flag: string, argument: string | undefined): string {
  return argument === undefined ? flag : `${flag} <${argument}>`;
}
