/**
 * Durable refs (git's own default does not sync them), and patience with the locks of a `pack-refs` or of another
 * push to the same repository: they are held for milliseconds, so that seconds mean a disk that hangs. No hook runs:
 * rules are judged before. New values are object ids; whether refs have such names, for the sake of a warning, takes git
 * 24 looks at the disk each.
 */
export const refConfig: Readonly<Record<string, string>> = {
  'core.fsync': 'objects,derived-metadata,reference',
  'core.fsyncMethod': 'fsync',
  'core.filesRefLockTimeout': '10000',
  'core.packedRefsTimeout': '30000',
  'core.logAllRefUpdates': 'false',
  'core.hooksPath': '/dev/null',
  'core.warnAmbiguousRefs': 'false',
};
