import { matchesGlob } from '../../backends/contract/glob.js';
import type { InspectedCommit, PushFact } from '../../backends/contract/inspection.js';
import type { MessageCheck } from './message-check.js';
import type { Rule } from './rule.js';
import type { Violation } from './violation.js';

/** Messages asked about at once: of real ones, some 100 KB. */
const messagesAtOnce = 500;
/** Of a batch, in UTF-16 units; a message may have a megabyte. */
const maxBatchLength = 4 * 1024 * 1024;

/** Judges what the new history of one ref holds by one rule, as it is told. */
export class ContentJudge {
  readonly #rule: Rule;
  readonly #messages: MessageCheck;
  #pending: { oid: string; message: string }[] = [];
  #pendingLength = 0;

  constructor(rule: Rule, messages: MessageCheck) {
    this.#rule = rule;
    this.#messages = messages;
  }

  async hear(fact: PushFact): Promise<Violation | undefined> {
    if (fact.type === 'commit') return this.#commit(fact);
    const { maxFileSize, forbiddenPaths } = this.#rule;
    const forbidden = forbiddenPaths.find((pattern) => isPathOf(pattern, fact.path));
    if (forbidden !== undefined) {
      return {
        demand: 'forbidden-paths',
        reason: `${shown(fact.path)} in commit ${short(fact.commit)} is forbidden (${forbidden})`,
      };
    }
    if (maxFileSize !== undefined && fact.sizeBytes > maxFileSize) {
      return {
        demand: 'max-file-size',
        reason: `${shown(fact.path)} in commit ${short(fact.commit)} has ${fact.sizeBytes} bytes; at most ${maxFileSize} are allowed`,
      };
    }
    return undefined;
  }

  /** To be called when all was heard and found good. */
  async end(): Promise<Violation | undefined> {
    const { commitMessage } = this.#rule;
    const pending = this.#pending;
    this.#pending = [];
    this.#pendingLength = 0;
    if (commitMessage === undefined || pending.length === 0) return undefined;
    const mismatch = await this.#messages.firstMismatch(
      commitMessage,
      pending.map(({ message }) => message),
    );
    const found = mismatch === undefined ? undefined : pending[mismatch];
    return found === undefined
      ? undefined
      : {
          demand: 'commit-message',
          reason: `the message of commit ${short(found.oid)} does not match ${shown(commitMessage)}`,
        };
  }

  async #commit(commit: InspectedCommit): Promise<Violation | undefined> {
    const { linearHistory, signedCommits, commitMessage } = this.#rule;
    if (linearHistory && commit.parents.length > 1) {
      return { demand: 'linear-history', reason: `commit ${short(commit.oid)} is a merge` };
    }
    if (signedCommits && commit.signature !== 'good') {
      const what =
        commit.signature === 'refused'
          ? 'is not signed by a key that is registered here'
          : 'is not signed';
      return { demand: 'signed-commits', reason: `commit ${short(commit.oid)} ${what}` };
    }
    if (commitMessage === undefined) return undefined;
    if (commit.message === undefined) {
      return { demand: 'commit-message', reason: `commit ${short(commit.oid)} is too large` };
    }
    this.#pending.push({ oid: commit.oid, message: commit.message });
    this.#pendingLength += commit.message.length;
    const full = this.#pending.length >= messagesAtOnce || this.#pendingLength >= maxBatchLength;
    return full ? this.end() : undefined;
  }
}

/** A pattern without a slash is of file names, at any depth. */
function isPathOf(pattern: string, path: string): boolean {
  return (
    matchesGlob(pattern, path) || (!pattern.includes('/') && matchesGlob(`**/${pattern}`, path))
  );
}

const short = (oid: string): string => oid.slice(0, 10);

/** Of what the pusher wrote, or an administrator: one line, and not a long one. */
function shown(text: string): string {
  const line = text.replaceAll(/[\x00-\x1f\x7f-\x9f]/g, '?');
  return line.length > 200 ? `${line.slice(0, 200)}...` : line;
}
