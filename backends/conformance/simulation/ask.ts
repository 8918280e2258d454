import { asQuorateError } from '../../contract/errors.js';
import type { FrontEnd } from './front-end-host.js';
import type { FrontEndHost } from './hosts.js';

/** What the client of a server that died sees. */
export const broken = Symbol('broken connection');

/** What the front-end answers, its error, or that its process died. */
export function askFrontEnd<T>(
  { frontEnd, process }: FrontEndHost,
  run: (frontEnd: FrontEnd) => Promise<T>,
): Promise<T | Error | typeof broken> {
  if (frontEnd === undefined || process === undefined) return Promise.resolve(broken);
  return new Promise((resolve) => {
    process.onDeath(() => resolve(broken));
    const hear = async (): Promise<void> => {
      const answer = await run(frontEnd).catch(asQuorateError);
      if (process.alive) resolve(answer);
    };
    void hear();
  });
}
