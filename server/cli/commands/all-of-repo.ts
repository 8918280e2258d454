import type { Command } from 'commander';
import { addReplicaCommands } from './cluster.js';
import { addRepositoryAccessCommands } from './repo-access.js';
import { addRepoRecoverCommand } from './repo-recover.js';
import { addVerifyCommand } from './repo-verify.js';
import { addRepositoryWorkCommands } from './repo-work.js';
import { addRepositoryCommands } from './repo.js';

/** `quorate repo ...`. */
export function addAllOfRepo(program: Command): void {
  const repo = program.command('repo').description('repositories');
  addRepositoryCommands(repo);
  addRepositoryAccessCommands(repo);
  addRepositoryWorkCommands(repo);
  addReplicaCommands(repo);
  addVerifyCommand(repo);
  addRepoRecoverCommand(repo);
}
