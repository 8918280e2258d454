import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { pickPort } from '../backends/contract/testing/ports.js';
import { waitFor } from './wait.js';

export interface Received {
  readonly path: string;
  readonly event: string;
  readonly delivery: string;
  readonly attempt: number;
  readonly signature: string;
  readonly text: string;
  readonly body: Readonly<Record<string, unknown>>;
}

type Behaviour = (request: IncomingMessage, response: ServerResponse) => void;

/** A real HTTP server on a loopback address that keeps what it is sent, and answers as a test wants it. */
export class Receiver {
  readonly received: Received[] = [];
  /** Default: 204. Called when the request was read. */
  behaviour: Behaviour = (_request, response) => void response.writeHead(204).end();
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      void this.#take(request, response);
    });
  }

  static async open(): Promise<Receiver> {
    const receiver = new Receiver();
    // Nobody else's when it is closed: what is still sent there comes to no other test's receiver.
    receiver.#server.listen(await pickPort(), '127.0.0.1');
    await once(receiver.#server, 'listening');
    return receiver;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('no TCP address');
    return address.port;
  }

  url(path = '/hook'): string {
    return `http://127.0.0.1:${this.port}${path}`;
  }

  /** Waits until `count` requests of an event came, and returns them. */
  async take(event: string, count = 1): Promise<readonly Received[]> {
    const found = (): readonly Received[] => this.received.filter((one) => one.event === event);
    await waitFor(`${count} of ${event}`, () => found().length >= count);
    return found();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(Buffer.from(part));
    const text = Buffer.concat(parts).toString('utf8');
    const header = (name: string): string => String(request.headers[name] ?? '');
    const body: unknown = JSON.parse(text);
    this.received.push({
      path: request.url ?? '',
      event: header('x-quorate-event'),
      delivery: header('x-quorate-delivery'),
      attempt: Number(header('x-quorate-attempt')),
      signature: header('x-quorate-signature-256'),
      text,
      body: typeof body === 'object' && body !== null ? { ...body } : {},
    });
    this.behaviour(request, response);
  }
}

/** As docs/webhooks.md tells receivers to. */
export function expectedSignature(secret: string, text: string): string {
  return `sha256=${createHmac('sha256', secret).update(text).digest('hex')}`;
}
