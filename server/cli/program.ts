import { Command, CommanderError } from 'commander';
import { version } from '../version.js';
import { CliError } from './cli-error.js';
import type { Serve, ServeParts } from './commands/serve.js';

type Load = () => Promise<(program: Command, parts: ServeParts) => void>;

/** By its first word, each command. Only what is asked for is loaded, since all of it takes longer than most of them do. */
const commands = new Map<string, Load>([
  ['serve', async () => (await import('./commands/serve.js')).addServeCommand],
  ['user', async () => (await import('./commands/user.js')).addUserCommands],
  ['group', async () => (await import('./commands/group.js')).addGroupCommands],
  ['key', async () => (await import('./commands/key.js')).addKeyCommands],
  ['deploy-key', async () => (await import('./commands/deploy-key.js')).addDeployKeyCommands],
  ['ca', async () => (await import('./commands/ca.js')).addCertificateCommands],
  ['oidc', async () => (await import('./commands/oidc.js')).addIssuerCommands],
  ['token', async () => (await import('./commands/token.js')).addTokenCommands],
  ['repo', async () => (await import('./commands/all-of-repo.js')).addAllOfRepo],
  ['node', async () => (await import('./commands/cluster.js')).addNodeCommands],
  ['rule', async () => (await import('./commands/rule.js')).addRuleCommands],
  ['quota', async () => (await import('./commands/quota.js')).addQuotaCommands],
  ['hook', async () => (await import('./commands/hook.js')).addHookCommands],
  ['webhook', async () => (await import('./commands/webhook.js')).addWebhookCommands],
  ['signing-key', async () => (await import('./commands/signing-key.js')).addSigningKeyCommands],
  ['audit', async () => (await import('./commands/audit.js')).addAuditCommand],
  ['host-key', async () => (await import('./commands/host-key.js')).addHostKeyCommands],
  ['status', async () => (await import('./commands/server-state.js')).addStatusCommand],
  ['locks', async () => (await import('./commands/server-state.js')).addLocksCommand],
  ['explain', async () => (await import('./commands/cluster.js')).addExplainCommand],
  ['recover', async () => (await import('./commands/cluster.js')).addRecoverCommand],
]);

/**
 * Runs `quorate` with the arguments after the program's name. Resolves with the exit status: 0; 1 when it failed; 2
 * when it was used in the wrong way; 130 after Ctrl-C (docs/cli.md). Never rejects. `serve` is handed in so that every other
 * command starts without loading the server.
 */
export async function runCli(
  argv: readonly string[],
  parts: { readonly serve: Serve },
): Promise<number> {
  endQuietlyWithReader(process.stdout);
  endQuietlyWithReader(process.stderr);
  let exitCode = 0;
  const finish = (code: number): void => {
    exitCode = code;
  };
  try {
    const words = argv[0] === 'help' ? [...argv.slice(1), '--help'] : argv;
    const program = await createProgram({ ...parts, finish }, words);
    await program.parseAsync(words, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has said what it had to say. Only what was asked for (--help, --version) went well.
      return error.code === 'commander.helpDisplayed' || error.code === 'commander.version' ? 0 : 2;
    }
    const message = error instanceof Error ? error.message : String(error);
    process.stderr.write(`quorate: ${message}\n`);
    return error instanceof CliError ? error.exitCode : 1;
  }
}

/** With the command that `argv` begins with; with all of them where it begins with none, or none is given. */
export async function createProgram(
  parts: ServeParts,
  argv: readonly string[] = [],
): Promise<Command> {
  const program = new Command('quorate');
  program
    .description('A Git server whose repositories are replicated.')
    .version(version, '-V, --version', 'print the version')
    .option('--data <dir>', 'data directory of a server on this machine (default: "./data")')
    .option('--json', 'print machine-readable results on stdout')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'quorate: ')),
    })
    .exitOverride()
    .addHelpText(
      'after',
      `
Commands find the server by --data, or else by the environment's QUORATE_URL and QUORATE_TOKEN, or else in ./data.`,
    );
  const asked = commands.get(firstWord(argv));
  for (const load of asked === undefined ? commands.values() : [asked]) {
    const add = await load();
    add(program, parts);
  }
  return program;
}

/** Behind the options of every command. */
function firstWord(argv: readonly string[]): string {
  const at = argv.findIndex((word, i) => !word.startsWith('-') && argv[i - 1] !== '--data');
  return argv[at] ?? '';
}

/** `quorate repo list | head -1`: the reader has seen enough, and nobody is left to tell about it. */
function endQuietlyWithReader(stream: NodeJS.WriteStream): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
}
