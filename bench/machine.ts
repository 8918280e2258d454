import { cpus, loadavg, release, totalmem } from 'node:os';
import { git, run } from './commands.js';

/** What the figures depend on. */
export interface Machine {
  readonly at: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly node: string;
  readonly git: string;
  readonly nginx: string | undefined;
  readonly ssh: string | undefined;
  /** Load average of the last minute before the start. */
  readonly load: number;
}

export async function describeMachine(): Promise<Machine> {
  return {
    at: new Date().toISOString(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryBytes: totalmem(),
    kernel: release(),
    node: process.version,
    git: await git(['--version']),
    nginx: await version('nginx', '-v'),
    ssh: await version('ssh', '-V'),
    load: loadavg()[0] ?? 0,
  };
}

/** Both tell their version on stderr, with status 0. */
function version(program: string, flag: string): Promise<string | undefined> {
  return run(program, [flag], { output: 'stderr' }).catch(() => undefined);
}

export function formatMachine(machine: Machine): string {
  const { cpu, cores, memoryBytes, kernel, node, git: gitVersion, nginx, ssh, load, at } = machine;
  const memory = `${Math.round(memoryBytes / 1024 ** 3)} GiB`;
  const programs = [`Node ${node}`, gitVersion, nginx, ssh].filter((part) => part !== undefined);
  return `${at}: ${cores} cores (${cpu}), ${memory}, Linux ${kernel}, load ${load.toFixed(1)}\n${programs.join('; ')}`;
}
