/*
 * The capability advertisement of protocol v2 (gitprotocol-v2(5)).
 *
 *   capability-advertisement = PKT-LINE("version 2" LF) *(PKT-LINE(capability LF)) flush-pkt
 */
import { parseCapability, writeCapability, type Capability } from './capabilities.js';
import { parseErrorPkt, parsePktText, pktText, type PktReader } from './pkt-line.js';
import { WireError } from './wire-error.js';

export function writeV2Capabilities(capabilities: readonly Capability[]): string {
  const lines = capabilities.map((capability) => pktText(`${writeCapability(capability)}\n`));
  return `${pktText('version 2\n')}${lines.join('')}0000`;
}

/** Reads up to and with the flush. Throws WireError. */
export async function readV2Capabilities(reader: PktReader): Promise<readonly Capability[]> {
  const capabilities: Capability[] = [];
  for (let first = true; ; first = false) {
    const pkt = await reader.read();
    if (pkt === undefined) throw new WireError('truncated', 'the advertisement is cut off');
    if (pkt.type === 'flush') return capabilities;
    if (pkt.type !== 'data') throw new WireError('malformed', `unexpected ${pkt.type} packet`);
    const message = parseErrorPkt(pkt.payload);
    if (message !== undefined) throw new WireError('unsupported', message);
    const text = parsePktText(pkt.payload);
    if (!first) {
      capabilities.push(parseCapability(text));
    } else if (text !== 'version 2') {
      throw new WireError('malformed', 'not a v2 advertisement');
    }
  }
}
