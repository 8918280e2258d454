import express, { type Request, type Response } from 'express';
import type { Clock } from '../../backends/contract/environment.js';
import { QuorateError } from '../../backends/contract/errors.js';
import { HttpRefusal } from './error-map.js';

/** The largest sensible request, all settings at once, is some kilobytes. */
const maxBodyBytes = 1024 * 1024;
/** A hook of 1 MiB in base64. */
const maxLargeBodyBytes = 1536 * 1024;
/** 1 MiB arrives in this time over the slowest link that one would administer from. */
const maxBodyTimeMs = 30_000;

const json = { inflate: false, type: 'application/json' };
const parseSmall = express.json({ ...json, limit: maxBodyBytes });
const parseLarge = express.json({ ...json, limit: maxLargeBodyBytes });

/**
 * The JSON body, or undefined when there is none. Bounded in size (1 MiB, or 1.5 when it may be large) and time (30 s). Rejects with an error that
 * `error-map.ts` knows: 408, 413, 415, or 400 for what is no JSON.
 */
export async function readBody(
  exchange: { readonly request: Request; readonly response: Response; readonly large: boolean },
  clock: Clock,
): Promise<unknown> {
  const { request, response } = exchange;
  const announced = request.headers['content-length'];
  const empty =
    request.headers['transfer-encoding'] === undefined &&
    (announced === undefined || announced === '0');
  if (empty) return undefined;
  if (request.is('application/json') === false) {
    throw new HttpRefusal(
      415,
      new QuorateError('invalid-argument', 'the request body has to be application/json'),
    );
  }
  const over = new AbortController();
  const parseJson = exchange.large ? parseLarge : parseSmall;
  const parsed = new Promise<void>((resolve, reject) => {
    parseJson(request, response, (error?: unknown) => {
      if (error === undefined) resolve();
      else reject(error instanceof Error ? error : new Error('the body parser failed'));
    });
  });
  const late = clock.sleep(maxBodyTimeMs, over.signal).then(() => {
    if (over.signal.aborted) return;
    throw new HttpRefusal(
      408,
      new QuorateError('deadline-exceeded', 'the request body did not arrive within 30 seconds'),
    );
  });
  try {
    await Promise.race([parsed, late]);
  } finally {
    over.abort();
    // The loser of the race may still fail, when the connection ends: nobody is waiting for that any more.
    parsed.catch(() => undefined);
    late.catch(() => undefined);
  }
  const body: unknown = request.body;
  return body;
}
