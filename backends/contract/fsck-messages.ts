/**
 * Message ids of git's fsck (git-fsck(1), "FSCK MESSAGES") that a repository may choose to ignore. git refuses to run
 * with an id that it does not know or that is fatal (`nulInHeader`, `unterminatedHeader`), so only those in git 2.39
 * are here.
 */
export const ignorableFsckIds: ReadonlySet<string> = new Set(
  `badDate badDateOverflow badEmail badName badObjectSha1 badParentSha1 badTimezone badTree badTreeSha1 badType
  duplicateEntries missingAuthor missingCommitter missingEmail missingNameBeforeEmail missingObject
  missingSpaceBeforeDate missingSpaceBeforeEmail missingTag missingTagEntry missingTree missingType missingTypeEntry
  multipleAuthors treeNotSorted unknownType zeroPaddedDate gitmodulesMissing gitmodulesBlob gitmodulesLarge
  gitmodulesName gitmodulesSymlink gitmodulesUrl gitmodulesPath gitmodulesUpdate gitattributesMissing
  gitattributesLarge gitattributesLineLength gitattributesBlob emptyName fullPathname hasDot hasDotdot hasDotgit
  nullSha1 nulInCommit zeroPaddedFilemode badFilemode gitmodulesParse gitignoreSymlink gitattributesSymlink
  mailmapSymlink badTagName missingTaggerEntry extraHeaderEntry`
    .toLowerCase()
    .split(/\s+/),
);

/** Ids are compared as git does, without regard to case. */
export function isIgnorableFsckId(id: string): boolean {
  return ignorableFsckIds.has(id.toLowerCase());
}
