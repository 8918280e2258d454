import { after, before, describe } from 'node:test';
import { createScene, type Scene, type ServerProcess } from '../../e2e/harness.js';
import { defineFrontEndFetches } from './front-end-fetches.js';
import { type FrontEnd, FrontEndClient, transports } from './front-end-ground.js';
import { defineFrontEndPushes } from './front-end-pushes.js';

/** What real git does against a running server, whatever it keeps its repositories in, over every transport. */
export function defineFrontEndSuite(
  name: string,
  start: (scene: Scene) => Promise<ServerProcess>,
): void {
  describe(`front end: ${name}`, () => {
    let frontEnd: FrontEnd | undefined;
    before(async () => {
      frontEnd = await startFrontEnd(start);
    });
    after(() => frontEnd?.scene.close());
    for (const transport of transports) {
      describe(transport.name, () => {
        const client = new FrontEndClient(transport, () => {
          if (frontEnd === undefined) throw new Error('the server was not started');
          return frontEnd;
        });
        defineFrontEndFetches(client);
        defineFrontEndPushes(client);
      });
    }
  });
}

/** A server in a scene of its own, with an SSH key of `admin`. */
export async function startFrontEnd(
  start: (scene: Scene) => Promise<ServerProcess>,
): Promise<FrontEnd> {
  const scene = await createScene();
  const server = await start(scene);
  const key = await scene.sshKey();
  await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
  return { scene, server, sshEnvironment: await key.environment(server) };
}
