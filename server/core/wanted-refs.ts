import {
  delimPkt,
  flushPkt,
  PktReader,
  pktText,
  responseEndPkt,
  writePkt,
  type Pkt,
} from '../wire/pkt-line.js';
import { WireError } from '../wire/wire-error.js';
import type { WantedRef } from './fetch-checks.js';

/**
 * Puts the `wanted-refs` section into git's answer to a v2 fetch, right before the pack.
 *
 * gitprotocol-v2(5) orders the sections acknowledgments, shallow-info, wanted-refs, packfile. git 2.39's own
 * upload-pack writes wanted-refs before shallow-info, and its own client then gives up a shallow clone ("expected
 * 'packfile', received 'shallow-info'"). So refs wanted by name reach git as ids, and are named here. It also pins
 * them to the generation that was judged.
 */
export async function* withWantedRefs(
  answer: AsyncIterable<Uint8Array>,
  refs: readonly WantedRef[],
  { sideBandAll }: { readonly sideBandAll: boolean },
): AsyncGenerator<Uint8Array, void, undefined> {
  const band = sideBandAll ? '\x01' : '';
  const reader = new PktReader(answer);
  try {
    for (;;) {
      const pkt = await reader.read();
      if (pkt === undefined) return;
      if (pkt.type === 'data' && pkt.payload.toString('latin1') === `${band}packfile\n`) {
        yield Buffer.from(wantedRefsSection(refs, band));
        yield writePkt(pkt.payload);
        break;
      }
      yield bytesOf(pkt);
    }
  } catch (error) {
    // git died inside a packet: nothing more can be passed on, and its exit status says the rest.
    if (error instanceof WireError) return;
    throw error;
  }
  yield* reader.rest();
}

/** The section with the delimiter behind it; `band` is what each packet begins with under sideband-all. */
export function wantedRefsSection(refs: readonly WantedRef[], band: '' | '\x01'): string {
  const lines = refs.map(({ name, oid }) => pktText(`${band}${oid} ${name}\n`));
  return `${pktText(`${band}wanted-refs\n`)}${lines.join('')}0001`;
}

function bytesOf(pkt: Pkt): Buffer {
  switch (pkt.type) {
    case 'data':
      return writePkt(pkt.payload);
    case 'flush':
      return flushPkt;
    case 'delim':
      return delimPkt;
    case 'response-end':
      return responseEndPkt;
  }
}
