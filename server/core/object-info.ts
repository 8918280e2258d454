import {
  parseObjectInfoArguments,
  writeObjectInfo,
  type ObjectInfoRequest,
} from '../wire/object-info.js';
import { WireError } from '../wire/wire-error.js';
import { forbiddenObject, type FetchGround } from './fetch-checks.js';
import { oidLength, type GitContext } from './git-context.js';
import { ProtocolRefusal } from './service-error.js';

/** Answers v2 `object-info` (gitprotocol-v2(5)). Objects that may not be fetched may not be measured. */
export async function objectInfo(
  { output, parts }: GitContext,
  ground: FetchGround,
  args: readonly string[],
): Promise<{ readonly objects: number }> {
  const { size, oids } = parse(args, parts.limits.maxObjectInfos);
  const length = oidLength(ground.session.repository.objectFormat);
  if (oids.some((oid) => oid.length !== length)) {
    throw new ProtocolRefusal('object-info: protocol error, expected to get oid');
  }
  if (!size) {
    // Nothing but sizes can be asked for; git answers a request for nothing with nothing.
    await output.write('0000');
    return { objects: 0 };
  }
  const sizes = await ground.session.objectSizes(oids);
  const objects = oids.map((oid, index) => ({ oid, sizeBytes: sizes[index] }));
  const present = objects.filter(({ sizeBytes }) => sizeBytes !== undefined);
  const forbidden = await forbiddenObject(
    ground,
    present.map(({ oid }) => oid),
  );
  if (forbidden !== undefined) throw new ProtocolRefusal(`object-info: not our ref ${forbidden}`);
  await output.write(writeObjectInfo(objects));
  return { objects: objects.length };
}

function parse(args: readonly string[], maxOids: number): ObjectInfoRequest {
  try {
    return parseObjectInfoArguments(args, maxOids);
  } catch (error) {
    throw error instanceof WireError ? new ProtocolRefusal(`object-info: ${error.message}`) : error;
  }
}
