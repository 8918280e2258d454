/*
 * A command request of protocol v2 (gitprotocol-v2(5), "Command Request").
 *
 *   request      = empty-request / command-request
 *   empty-request = flush-pkt
 *   command-request = command capability-list [delim-pkt command-args] flush-pkt
 *   command      = PKT-LINE("command=" key LF)
 *   capability-list = *(PKT-LINE(capability LF))
 *   command-args = *(PKT-LINE(command-specific-arg LF))
 *
 * git's server takes the command anywhere among the capabilities; so do we.
 */
import { parseCapability, writeCapability, type Capability } from './capabilities.js';
import { parsePktText, pktText, type PktReader } from './pkt-line.js';
import { excerpt, WireError } from './wire-error.js';

export interface CommandRequest {
  readonly command: string;
  readonly capabilities: readonly Capability[];
  /** Less their line feeds. */
  readonly args: readonly string[];
}

/** git sends about five; server options are the only ones without an end. */
const maxCapabilities = 256;

/**
 * The next request; undefined when the client is done: a lone flush, or the stream's end.
 * The bound on bytes is the reader's (`limit`). Throws WireError.
 */
export async function readCommandRequest(reader: PktReader): Promise<CommandRequest | undefined> {
  let command: string | undefined;
  const capabilities: Capability[] = [];
  const args: string[] = [];
  let inArgs = false;
  for (let first = true; ; first = false) {
    const pkt = await reader.read();
    if (pkt === undefined && first) return undefined;
    if (pkt === undefined) throw new WireError('truncated', 'the request is cut off');
    if (pkt.type === 'flush') {
      if (first) return undefined;
      if (command === undefined) throw new WireError('malformed', 'no command requested');
      return { command, capabilities, args };
    }
    if (pkt.type === 'response-end' || (pkt.type === 'delim' && inArgs)) {
      throw new WireError('malformed', `unexpected ${pkt.type} packet`);
    }
    if (pkt.type === 'delim') {
      inArgs = true;
      continue;
    }
    const text = parsePktText(pkt.payload);
    if (inArgs) {
      args.push(text);
    } else if (text.startsWith('command=')) {
      if (command !== undefined) {
        throw new WireError('malformed', `a second command '${excerpt(text.slice(8))}'`);
      }
      command = text.slice(8);
    } else {
      capabilities.push(parseCapability(text));
      if (capabilities.length > maxCapabilities) {
        throw new WireError('too-large', 'too many capabilities');
      }
    }
  }
}

export function writeCommandRequest({ command, capabilities, args }: CommandRequest): string {
  const lines = [pktText(`command=${command}\n`)];
  for (const capability of capabilities) lines.push(pktText(`${writeCapability(capability)}\n`));
  if (args.length > 0) lines.push('0001', ...args.map((arg) => pktText(`${arg}\n`)));
  return `${lines.join('')}0000`;
}
