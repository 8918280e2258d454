import { Command, CommanderError } from 'commander';
import { version } from '../version.js';
import { CliError } from './cli-error.js';
import { addCertificateCommands } from './commands/ca.js';
import {
  addExplainCommand,
  addNodeCommands,
  addRecoverCommand,
  addReplicaCommands,
} from './commands/cluster.js';
import { addDeployKeyCommands } from './commands/deploy-key.js';
import { addAuditCommand } from './commands/audit.js';
import { addGroupCommands } from './commands/group.js';
import { addIssuerCommands } from './commands/oidc.js';
import { addHookCommands } from './commands/hook.js';
import { addKeyCommands } from './commands/key.js';
import { addQuotaCommands } from './commands/quota.js';
import { addVerifyCommand } from './commands/repo-verify.js';
import { addRepoRecoverCommand } from './commands/repo-recover.js';
import { addRepositoryAccessCommands } from './commands/repo-access.js';
import { addRepositoryCommands } from './commands/repo.js';
import { addRepositoryWorkCommands } from './commands/repo-work.js';
import { addRuleCommands } from './commands/rule.js';
import { addServeCommand, type Serve } from './commands/serve.js';
import { addHostKeyCommands } from './commands/host-key.js';
import { addServerStateCommands } from './commands/server-state.js';
import { addSigningKeyCommands } from './commands/signing-key.js';
import { addTokenCommands } from './commands/token.js';
import { addUserCommands } from './commands/user.js';
import { addWebhookCommands } from './commands/webhook.js';

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
  const program = createProgram(parts.serve, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync(argv, { from: 'user' });
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

/** All commands. `finish` is told the exit status of a server that ended. */
export function createProgram(serve: Serve, finish: (exitCode: number) => void): Command {
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
  addServeCommand(program, serve, finish);
  addUserCommands(program);
  addGroupCommands(program);
  addKeyCommands(program);
  addDeployKeyCommands(program);
  addCertificateCommands(program);
  addIssuerCommands(program);
  addTokenCommands(program);
  const repo = program.command('repo').description('repositories');
  addRepositoryCommands(repo);
  addRepositoryAccessCommands(repo);
  addRepositoryWorkCommands(repo);
  addReplicaCommands(repo);
  addVerifyCommand(repo);
  addRepoRecoverCommand(repo);
  addNodeCommands(program);
  addRuleCommands(program);
  addQuotaCommands(program);
  addHookCommands(program);
  addWebhookCommands(program);
  addSigningKeyCommands(program);
  addAuditCommand(program);
  addHostKeyCommands(program);
  addServerStateCommands(program);
  addExplainCommand(program);
  addRecoverCommand(program);
  return program;
}

/** `quorate repo list | head -1`: the reader has seen enough, and nobody is left to tell about it. */
function endQuietlyWithReader(stream: NodeJS.WriteStream): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
}
