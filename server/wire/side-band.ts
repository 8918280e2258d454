/*
 * side-band-64k (gitprotocol-pack(5), "Packfile Data"): several streams in one.
 *
 *   sideband-pkt = PKT-LINE(band *OCTET)
 *   band         = %x01 / %x02 / %x03    ; pack or report data, progress, fatal error
 *
 * A packet with a band and nothing else is a keep-alive.
 */
import { maxPktPayloadBytes, pktLength } from './pkt-line.js';
import { WireError } from './wire-error.js';

export type Band = 1 | 2 | 3;

/** Data that fits into one side-band-64k packet. */
export const maxSideBandDataBytes = maxPktPayloadBytes - 1;

/** What keeps an idle connection open: an empty packet on band 1, as git sends. */
export const keepAlivePkt: Buffer = Buffer.from('0005\x01', 'latin1');

/** `data` in as many packets as it takes, none when it is empty. The data is copied once. */
export function writeSideBand(band: Band, data: Uint8Array): Buffer {
  const packets = Math.ceil(data.length / maxSideBandDataBytes);
  const framed = Buffer.allocUnsafe(data.length + packets * 5);
  let to = 0;
  for (let from = 0; from < data.length; from += maxSideBandDataBytes) {
    const part = data.subarray(from, from + maxSideBandDataBytes);
    to += framed.write(pktLength(part.length + 1), to, 'latin1');
    framed[to] = band;
    framed.set(part, to + 1);
    to += 1 + part.length;
  }
  return framed;
}

/** Takes a packet's payload apart. Throws WireError `malformed` for a band that does not exist. */
export function parseSideBand(payload: Buffer): { readonly band: Band; readonly data: Buffer } {
  const band = payload[0];
  if (band !== 1 && band !== 2 && band !== 3) {
    throw new WireError('malformed', `bad side-band ${String(band)}`);
  }
  return { band, data: payload.subarray(1) };
}
