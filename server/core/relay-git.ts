import type { GitStream } from '../../backends/contract/backend.js';
import { PktReader } from '../wire/pkt-line.js';
import { WireError } from '../wire/wire-error.js';
import type { ClientOutput } from './client-output.js';
import { PktTracker } from './pkt-tracker.js';

export interface Relayed {
  readonly exitCode: number | null;
  /** git, or we for it, said an error to the client. */
  readonly errorTold: boolean;
  readonly stderr: string;
}

export interface RelayOptions {
  /** Drop git's own advertisement: everything up to and with the first flush. */
  readonly dropAdvertisement?: boolean;
  /** What the client is told when git fails without having said so itself. */
  readonly failure: string;
}

/**
 * Passes git's answer to the client with back-pressure. When git fails half-way the client is told in the form that
 * it listens to at that point; where that is impossible (inside a packet, or a pack without side-bands) the answer
 * just ends, which no client takes for a whole pack. Throws `cancelled` when the client goes; git is ended then.
 */
export async function relayGit(
  git: GitStream,
  output: ClientOutput,
  { dropAdvertisement = false, failure }: RelayOptions,
): Promise<Relayed> {
  const tracker = new PktTracker();
  output.voice = 'none';
  try {
    await passOn(git, { output, tracker, dropAdvertisement });
  } catch (error) {
    git.kill();
    await git.exited;
    throw error;
  }
  const { exitCode, stderr } = await git.exited;
  if (tracker.atBoundary) output.voice = tracker.inSideBand ? 'side-band' : 'error-packet';
  if (exitCode !== 0 && !tracker.errorTold && tracker.atBoundary) {
    await output.tell(failure);
    return { exitCode, stderr, errorTold: true };
  }
  return { exitCode, stderr, errorTold: tracker.errorTold };
}

async function passOn(
  git: GitStream,
  {
    output,
    tracker,
    dropAdvertisement,
  }: {
    readonly output: ClientOutput;
    readonly tracker: PktTracker;
    readonly dropAdvertisement: boolean;
  },
): Promise<void> {
  const source: AsyncIterable<Uint8Array> = git.stdout;
  for await (const bytes of dropAdvertisement ? behindAdvertisement(source) : source) {
    tracker.see(bytes);
    await output.write(bytes);
  }
}

/** What follows the first flush packet. A git that dies before has said nothing. */
async function* behindAdvertisement(
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = new PktReader(source);
  try {
    for (;;) {
      const pkt = await reader.read();
      if (pkt === undefined) return;
      if (pkt.type === 'flush') break;
    }
  } catch (error) {
    if (error instanceof WireError) return;
    throw error;
  }
  yield* reader.rest();
}
