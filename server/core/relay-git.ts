import type { ClientOutput } from './client-output.js';
import { PktTracker } from './pkt-tracker.js';
import type { SharedGit } from './shared-runs.js';

export interface Relayed {
  readonly exitCode: number | null;
  /** git, or we for it, said an error to the client. */
  readonly errorTold: boolean;
  readonly stderr: string;
}

export interface RelayOptions {
  /** What is made of git's answer on its way. */
  readonly through?: (answer: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>;
  /** What the client is told when git fails without having said so itself. */
  readonly failure: string;
}

/**
 * Passes git's answer to the client with back-pressure. When git fails half-way the client is told in the form that
 * it listens to at that point; where that is impossible (inside a packet, or a pack without side-bands) the answer
 * just ends, which no client takes for a whole pack. Throws `cancelled` when the client goes; git is ended then.
 */
export async function relayGit(
  git: SharedGit,
  output: ClientOutput,
  { through = (answer) => answer, failure }: RelayOptions,
): Promise<Relayed> {
  const tracker = new PktTracker();
  output.voice = 'none';
  try {
    for await (const bytes of through(git.stdout)) {
      tracker.see(bytes);
      await output.write(bytes);
    }
  } catch (error) {
    git.kill();
    await git.exited;
    throw error;
  }
  const { exitCode, stderr } = await git.exited;
  if (tracker.atBoundary) output.voice = tracker.inSideBand ? 'side-band' : 'error-packet';
  if (exitCode !== 0 && !tracker.errorTold && tracker.atBoundary) {
    output.tell(failure);
    return { exitCode, stderr, errorTold: true };
  }
  return { exitCode, stderr, errorTold: tracker.errorTold };
}
