/*
 * What a pushing client sends before the pack (gitprotocol-pack(5), "Reference Update Request and Packfile Transfer").
 *
 *   update-requests = *shallow ( command-list / push-cert ) flush-pkt [push-options]
 *   shallow      = PKT-LINE("shallow" SP obj-id [LF])
 *   command-list = PKT-LINE(command NUL capability-list) *PKT-LINE(command)
 *   command      = old-id SP new-id SP name [LF]
 *   push-options = *PKT-LINE(push-option) flush-pkt        ; when "push-options" was negotiated
 *   push-cert    = refused: signed pushes are not offered
 */
import {
  hasCapability,
  parseCapabilities,
  writeCapabilities,
  type Capability,
} from './capabilities.js';
import { parseOid } from './oid.js';
import { parsePktText, pktText, type PktReader } from './pkt-line.js';
import { excerpt, WireError } from './wire-error.js';

export interface PushCommand {
  readonly oldOid: string;
  readonly newOid: string;
  /** As the client wrote it: not yet judged. */
  readonly ref: string;
}

export interface CommandList {
  readonly commands: readonly PushCommand[];
  readonly capabilities: readonly Capability[];
  readonly shallow: readonly string[];
}

export interface CommandListLimits {
  readonly maxCommands: number;
  readonly maxShallow: number;
  readonly maxPushOptions: number;
  readonly maxPushOptionBytes: number;
}

/**
 * Reads one push's commands. What was learnt before an error stays readable: whether the client listens on side-bands
 * decides how it can be told.
 */
export class CommandListReader {
  readonly #reader: PktReader;
  readonly #limits: CommandListLimits;
  #capabilities: readonly Capability[] | undefined;

  constructor(reader: PktReader, limits: CommandListLimits) {
    this.#reader = reader;
    this.#limits = limits;
  }

  /** Empty until the first command was read. */
  get capabilities(): readonly Capability[] {
    return this.#capabilities ?? [];
  }

  /**
   * Reads up to and with the flush after the commands. Undefined when there is none: a lone flush, or the stream's
   * end. The bound on bytes is the reader's (`limit`). Throws WireError.
   */
  async readCommands(): Promise<CommandList | undefined> {
    const commands: PushCommand[] = [];
    const shallow: string[] = [];
    for (let first = true; ; first = false) {
      const pkt = await this.#reader.read();
      if (pkt === undefined && first) return undefined;
      if (pkt === undefined) throw new WireError('truncated', 'the commands are cut off');
      if (pkt.type === 'flush') {
        if (commands.length === 0) return undefined;
        return { commands, capabilities: this.capabilities, shallow };
      }
      if (pkt.type !== 'data') throw new WireError('malformed', `unexpected ${pkt.type} packet`);
      this.#takeLine(parsePktText(pkt.payload), commands, shallow);
      if (commands.length > this.#limits.maxCommands) {
        throw new WireError(
          'too-large',
          `more than ${this.#limits.maxCommands} ref updates in one push (receive.maxCommands)`,
        );
      }
      if (shallow.length > this.#limits.maxShallow) {
        throw new WireError('too-large', `more than ${this.#limits.maxShallow} shallow commits`);
      }
    }
  }

  /** The options, when the client negotiated them; else none and nothing is read. Throws WireError. */
  async readPushOptions(): Promise<readonly string[]> {
    const options: string[] = [];
    if (!hasCapability(this.capabilities, 'push-options')) return options;
    const { maxPushOptions, maxPushOptionBytes } = this.#limits;
    let bytes = 0;
    for (;;) {
      const pkt = await this.#reader.read();
      if (pkt === undefined) throw new WireError('truncated', 'the push options are cut off');
      if (pkt.type === 'flush') return options;
      if (pkt.type !== 'data') throw new WireError('malformed', `unexpected ${pkt.type} packet`);
      bytes += pkt.payload.length;
      if (options.length === maxPushOptions || bytes > maxPushOptionBytes) {
        throw new WireError(
          'too-large',
          `push options: at most ${maxPushOptions}, ${maxPushOptionBytes} bytes in all`,
        );
      }
      options.push(parsePktText(pkt.payload));
    }
  }

  #takeLine(line: string, commands: PushCommand[], shallow: string[]): void {
    if (line.startsWith('shallow ')) {
      shallow.push(parseOid(line.slice(8)));
      return;
    }
    const nul = line.indexOf('\0');
    const text = nul < 0 ? line : line.slice(0, nul);
    if (nul >= 0 && this.#capabilities === undefined) {
      this.#capabilities = parseCapabilities(line.slice(nul + 1));
    }
    if (text === 'push-cert') {
      throw new WireError(
        'unsupported',
        'signed pushes are not supported here: push without --signed',
      );
    }
    const [, oldOid, newOid, ref] = /^([0-9a-f]+) ([0-9a-f]+) (.+)$/s.exec(text) ?? [];
    if (oldOid === undefined || newOid === undefined || ref === undefined) {
      throw new WireError('malformed', `expected old/new/ref, got '${excerpt(text)}'`);
    }
    commands.push({ oldOid: parseOid(oldOid), newOid: parseOid(newOid), ref });
    this.#capabilities ??= [];
  }
}

/** `pushOptions` are written when given: then `push-options` has to be among the capabilities. */
export function writeCommandList(
  { commands, capabilities, shallow }: CommandList,
  pushOptions?: readonly string[],
): string {
  const lines = shallow.map((oid) => pktText(`shallow ${oid}\n`));
  for (const [index, { oldOid, newOid, ref }] of commands.entries()) {
    const list = index === 0 ? `\0${writeCapabilities(capabilities)}` : '';
    lines.push(pktText(`${oldOid} ${newOid} ${ref}${list}`));
  }
  lines.push('0000');
  if (pushOptions !== undefined) lines.push(...pushOptions.map(pktText), '0000');
  return lines.join('');
}
