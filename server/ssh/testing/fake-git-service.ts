import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { QuorateError, type ErrorCode } from '../../../backends/contract/errors.js';
import type { GitExchange, GitOutcome, GitRequest, GitService } from '../../core/git-request.js';

export interface FakeExchange {
  readonly request: GitRequest;
  receivedBytes: number;
  sentBytes: number;
  /** Bytes handed to the output and not taken yet, at most. */
  maxBufferedBytes: number;
  /** How `run` ended: undefined while it runs. */
  ended: 'ok' | Error | undefined;
}

/**
 * A GitService whose repositories say what it does:
 *   `echo`        sends back what it gets
 *   `source/N`    sends N bytes, after the client's EOF
 *   `flood/N`     sends N bytes at once
 *   `sink`        counts what it gets, then says how much that was
 *   `hang`        waits for the signal
 *   `stubborn`    waits for ever
 *   `queue`       wants bytes, and waits for `release` meanwhile
 *   `exit/N`      ends with exit code N
 *   `fail/CODE`   `open` rejects; `run-fail/CODE`: `run` does
 *   `facts`       tells the request as JSON
 *   `advertise`   what git needs to list one ref
 */
export class FakeGitService implements GitService {
  readonly exchanges: FakeExchange[] = [];
  /** Ends what waits in the queue. */
  release: () => void = () => undefined;

  async open(request: GitRequest): Promise<GitExchange> {
    const [kind = '', argument = ''] = request.path.replace(/^\//, '').split('/');
    if (kind === 'fail') throw new QuorateError(codeOf(argument), `no such luck: ${argument}`);
    const state: FakeExchange = {
      request,
      receivedBytes: 0,
      sentBytes: 0,
      maxBufferedBytes: 0,
      ended: undefined,
    };
    this.exchanges.push(state);
    return {
      known: () => Promise.resolve(undefined),
      run: async (input, output) => {
        try {
          if (kind === 'queue') await this.#queue(request, input);
          const exitCode = await behave(kind, argument, { state, input, output });
          state.ended = 'ok';
          return outcome(exitCode);
        } catch (error) {
          state.ended = error instanceof Error ? error : new Error(String(error));
          if (error instanceof QuorateError && state.sentBytes === 0) throw error;
          return { status: 'error', exitCode: 128, fields: {} };
        }
      },
    };
  }

  async #queue(request: GitRequest, input: Readable): Promise<void> {
    input.read();
    request.onHold?.(true);
    await new Promise<void>((resolve) => {
      this.release = resolve;
      request.signal.addEventListener('abort', () => resolve());
    });
    request.onHold?.(false);
  }
}

interface Streams {
  readonly state: FakeExchange;
  readonly input: Readable;
  readonly output: Writable;
}

async function behave(kind: string, argument: string, streams: Streams): Promise<number> {
  const { state, input, output } = streams;
  switch (kind) {
    case 'echo':
      await pipeline(input, output, { end: false });
      return 0;
    case 'source':
      for await (const chunk of input) state.receivedBytes += Buffer.from(chunk).length;
      await send(streams, Number(argument));
      return 0;
    case 'flood':
      await send(streams, Number(argument));
      return 0;
    case 'sink':
      for await (const chunk of input) state.receivedBytes += Buffer.from(chunk).length;
      output.write(`${state.receivedBytes}\n`);
      return 0;
    case 'hang':
      await aborted(state.request.signal);
      throw state.request.signal.reason;
    case 'queue':
      if (state.request.signal.aborted) throw state.request.signal.reason;
      return 0;
    case 'stubborn':
      return new Promise(() => undefined);
    case 'exit':
      return Number(argument);
    case 'run-fail':
      throw new QuorateError(codeOf(argument), 'no\x1b[31m such\nluck');
    case 'facts': {
      const { service, path, principal, transport, protocol, mode } = state.request;
      output.write(JSON.stringify({ service, path, principal, transport, protocol, mode }));
      return 0;
    }
    case 'advertise': {
      const line = `${'1'.repeat(40)} refs/heads/main\0agent=fake\n`;
      output.write(`${(line.length + 4).toString(16).padStart(4, '0')}${line}0000`);
      for await (const chunk of input) state.receivedBytes += Buffer.from(chunk).length;
      return 0;
    }
    default:
      throw new QuorateError('not-found', 'there is no such repository');
  }
}

/** As a GitExchange writes: one large chunk after the other, waiting for `drain`. */
async function send({ state, output }: Streams, sizeBytes: number): Promise<void> {
  const chunk = Buffer.alloc(256 * 1024, 0x51);
  while (state.sentBytes < sizeBytes) {
    const part = chunk.subarray(0, Math.min(chunk.length, sizeBytes - state.sentBytes));
    state.sentBytes += part.length;
    const room = output.write(part);
    state.maxBufferedBytes = Math.max(state.maxBufferedBytes, output.writableLength);
    if (!room) await once(output, 'drain', { signal: state.request.signal });
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort');
}

function outcome(exitCode: number): GitOutcome {
  return { status: 'ok', exitCode, fields: {} };
}

const codes: readonly ErrorCode[] = [
  'not-found',
  'permission-denied',
  'internal',
  'outcome-unknown',
  'unavailable',
];

function codeOf(text: string): ErrorCode {
  return codes.find((code) => code === text) ?? 'internal';
}
