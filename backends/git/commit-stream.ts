import { QuorateError } from '../contract/errors.js';
import type { Oid } from '../contract/objects.js';
import type { GitRunner } from './git-runner.js';
import { gitOver, type HistorySource, tookTooLong } from './history-command.js';

export interface ReadCommit {
  readonly oid: Oid;
  readonly parents: readonly Oid[];
  /** Undefined when the commit is larger than what is kept of it. */
  readonly message: string | undefined;
  readonly signed: boolean;
}

/** Of one commit. Real ones have a kilobyte. */
const maxCommitBytes = 1024 * 1024;

/** The commits of `oids`, in order, from one `git cat-file --batch`. */
export async function* readCommits(
  source: HistorySource & { readonly git: GitRunner },
  oids: readonly Oid[],
): AsyncGenerator<ReadCommit, void, undefined> {
  if (oids.length === 0) return;
  const stream = await source.git.stream({
    ...gitOver(source, ['cat-file', '--batch=%(objecttype) %(objectsize)', '--buffer']),
    stdin: Buffer.from(oids.map((oid) => `${oid}\n`).join(''), 'latin1'),
  });
  try {
    const bytes = new ByteReader(stream.stdout);
    for (const oid of oids) {
      const [type = '', size = ''] = (await bytes.line()).split(' ');
      if (type !== 'commit') throw new QuorateError('storage-failure', 'a new commit is missing');
      const sizeBytes = Number(size);
      const kept = await bytes.take(Math.min(sizeBytes, maxCommitBytes));
      await bytes.skip(sizeBytes - kept.length + 1);
      yield parseCommit(oid, kept, sizeBytes > maxCommitBytes);
    }
  } finally {
    stream.kill();
    await stream.exited;
  }
}

/** Headers, an empty line, the message (gitformat-signature(5) for `gpgsig`). */
function parseCommit(oid: Oid, content: Buffer, cut: boolean): ReadCommit {
  const end = content.indexOf('\n\n');
  const headers = (end === -1 ? content : content.subarray(0, end)).toString('latin1').split('\n');
  const parents = headers.flatMap((line) =>
    line.startsWith('parent ') ? [line.slice('parent '.length)] : [],
  );
  return {
    oid,
    parents,
    message: cut ? undefined : end === -1 ? '' : content.subarray(end + 2).toString('utf8'),
    signed: headers.some((line) => line.startsWith('gpgsig ') || line.startsWith('gpgsig-sha256 ')),
  };
}

/** Lines and counted bytes from one stream. Its end, where more was due, means that git was ended. */
class ByteReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(stream: AsyncIterable<Buffer>) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  async line(): Promise<string> {
    for (;;) {
      const end = this.#rest.indexOf(0x0a);
      if (end !== -1) return this.#cut(end + 1).toString('latin1', 0, end);
      await this.#more();
    }
  }

  async take(sizeBytes: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let left = sizeBytes; left > 0;) {
      if (this.#rest.length === 0) await this.#more();
      const part = this.#cut(Math.min(left, this.#rest.length));
      parts.push(part);
      left -= part.length;
    }
    return Buffer.concat(parts);
  }

  async skip(sizeBytes: number): Promise<void> {
    for (let left = sizeBytes; left > 0;) {
      if (this.#rest.length === 0) await this.#more();
      left -= this.#cut(Math.min(left, this.#rest.length)).length;
    }
  }

  #cut(sizeBytes: number): Buffer {
    const part = this.#rest.subarray(0, sizeBytes);
    this.#rest = this.#rest.subarray(sizeBytes);
    return part;
  }

  async #more(): Promise<void> {
    const next = await this.#chunks.next();
    if (next.done === true) throw tookTooLong();
    this.#rest = this.#rest.length === 0 ? next.value : Buffer.concat([this.#rest, next.value]);
  }
}
