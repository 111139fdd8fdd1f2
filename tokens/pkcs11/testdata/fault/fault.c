// A PKCS#11 module for tests: SoftHSM's, with one thing wrong. The environment
// says which (FAULT), where SoftHSM's module is (FAULT_MODULE), which file keeps
// the count of wrong PINs (FAULT_STATE), and the PIN that somebody types on the
// keypad (FAULT_PIN).

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pkcs11go.h"

enum { maxWrong = 3 };

static CK_FUNCTION_LIST ours, *theirs;
static CK_OBJECT_CLASS wanted;
static int loggedIn, oaep;

static int fault(const char *name)
{
	const char *f = getenv("FAULT");
	return f != NULL && strcmp(f, name) == 0;
}

static void crash(void) { *(volatile int *)0 = 1; }

static void hang(void)
{
	for (;;)
		pause();
}

// The count of wrong PINs outlives the process, as it does in a card.
static int wrongPINs(int change)
{
	const char *path = getenv("FAULT_STATE");
	int n = 0;
	FILE *f;
	if (path == NULL)
		return 0;
	if ((f = fopen(path, "r")) != NULL) {
		if (fscanf(f, "%d", &n) != 1)
			n = 0;
		fclose(f);
	}
	if (change != 0) {
		n = change < 0 ? 0 : n + change;
		if ((f = fopen(path, "w")) != NULL) {
			fprintf(f, "%d\n", n);
			fclose(f);
		}
	}
	return n;
}

static CK_RV initialize(void *args)
{
	CK_C_INITIALIZE_ARGS *a = args;
	if (fault("hang-initialize"))
		hang();
	if (fault("crash-initialize"))
		crash();
	if (fault("fail-initialize"))
		return CKR_GENERAL_ERROR;
	if (fault("cannot-lock") && a != NULL && (a->flags & CKF_OS_LOCKING_OK))
		return CKR_CANT_LOCK;
	if (fault("prints"))
		puts("J\0\0\377\377 this is no message");
	return theirs->C_Initialize(args);
}

static CK_RV getSlotList(CK_BBOOL present, CK_SLOT_ID *list, CK_ULONG *count)
{
	if (fault("fail-slots"))
		return CKR_DEVICE_ERROR;
	if (fault("many-slots")) {
		for (CK_ULONG i = 0; list != NULL && i < *count; i++)
			list[i] = i;
		*count = 100000;
		return CKR_OK;
	}
	return theirs->C_GetSlotList(present, list, count);
}

static CK_RV getTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
	CK_RV rv = theirs->C_GetTokenInfo(slot, info);
	int wrong = wrongPINs(0);
	if (rv != CKR_OK)
		return rv;
	if (fault("garbage")) {
		memset(info->label, 0xff, sizeof info->label);
		memcpy(info->label, "\033[2J\r\n\342\200\256", 9);
		memset(info->manufacturerID, 0, sizeof info->manufacturerID);
		memset(info->model, 0x07, sizeof info->model);
		info->ulMinPinLen = info->ulMaxPinLen = (CK_ULONG)-1;
	}
	if (fault("keypad"))
		info->flags |= CKF_PROTECTED_AUTHENTICATION_PATH;
	if (fault("no-login"))
		info->flags &= ~CKF_LOGIN_REQUIRED;
	if (fault("no-pin"))
		info->flags &= ~CKF_USER_PIN_INITIALIZED;
	if (fault("locked"))
		info->flags |= CKF_USER_PIN_LOCKED;
	if (fault("counts")) {
		if (wrong > 0)
			info->flags |= CKF_USER_PIN_COUNT_LOW;
		if (wrong == maxWrong - 1)
			info->flags |= CKF_USER_PIN_FINAL_TRY;
		if (wrong >= maxWrong)
			info->flags |= CKF_USER_PIN_LOCKED;
	}
	return rv;
}

static CK_RV getMechanismInfo(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
	CK_RV rv = theirs->C_GetMechanismInfo(slot, type, info);
	if (fault("compressed-points") && type == CKM_ECDH1_DERIVE)
		info->flags = (info->flags & ~CKF_EC_UNCOMPRESS) | CKF_EC_COMPRESS;
	return rv;
}

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG length)
{
	CK_RV rv;
	if (fault("crash-login"))
		crash();
	if (fault("hang-login"))
		hang();
	if (fault("removed-at-login"))
		return CKR_DEVICE_REMOVED;
	if (fault("keypad")) {
		if (pin != NULL || length != 0)
			return CKR_ARGUMENTS_BAD;
		if (getenv("FAULT_PIN") == NULL)
			return CKR_FUNCTION_CANCELED;
		pin = (CK_UTF8CHAR *)getenv("FAULT_PIN");
		length = strlen((char *)pin);
	}
	if (fault("counts") && wrongPINs(0) >= maxWrong)
		return CKR_PIN_LOCKED;
	rv = theirs->C_Login(session, user, pin, length);
	if (rv == CKR_PIN_INCORRECT)
		wrongPINs(1);
	else if (rv == CKR_OK)
		wrongPINs(-1), loggedIn = 1;
	return rv;
}

static CK_RV openSession(CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify, CK_SESSION_HANDLE *session)
{
	CK_RV rv = theirs->C_OpenSession(slot, flags, app, notify, session);
	if (rv == CKR_OK && fault("no-login"))
		theirs->C_Login(*session, CKU_USER, (CK_UTF8CHAR *)getenv("FAULT_PIN"), strlen(getenv("FAULT_PIN")));
	return rv;
}

static CK_RV findObjectsInit(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count)
{
	wanted = (CK_OBJECT_CLASS)-1;
	for (CK_ULONG i = 0; i < count; i++)
		if (template[i].type == CKA_CLASS)
			wanted = *(CK_OBJECT_CLASS *)template[i].pValue;
	if (fault("crash-find"))
		crash();
	if (fault("ignores-templates"))
		count = 1;
	return theirs->C_FindObjectsInit(session, template, count);
}

static CK_RV findObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *list, CK_ULONG max, CK_ULONG *count)
{
	CK_RV rv = theirs->C_FindObjects(session, list, max, count);
	if (fault("hides-all") && !loggedIn && wanted != CKO_PRIVATE_KEY)
		*count = 0;
	if (fault("endless-objects")) {
		for (CK_ULONG i = 0; i < max; i++)
			list[i] = i + 1;
		*count = max;
	}
	return rv;
}

static CK_RV getAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *list, CK_ULONG count)
{
	CK_RV rv = theirs->C_GetAttributeValue(session, object, list, count);
	if (fault("secretive") && wanted == CKO_PRIVATE_KEY)
		for (CK_ULONG i = 0; i < count; i++)
			if (list[i].type == CKA_MODULUS || list[i].type == CKA_EC_PARAMS || list[i].type == CKA_DECRYPT || list[i].type == CKA_DERIVE) {
				list[i].ulValueLen = (CK_ULONG)-1;
				rv = CKR_ATTRIBUTE_TYPE_INVALID;
			}
	if (fault("garbage") && wanted != CKO_PRIVATE_KEY)
		for (CK_ULONG i = 0; i < count; i++)
			if (list[i].type != CKA_ID && list[i].pValue != NULL)
				memset(list[i].pValue, 0xa5, list[i].ulValueLen);
	return rv;
}

static CK_RV decryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
	oaep = mechanism->mechanism == CKM_RSA_PKCS_OAEP;
	if (oaep && fault("no-oaep"))
		return CKR_MECHANISM_INVALID;
	return theirs->C_DecryptInit(session, mechanism, key);
}

static CK_RV decrypt(CK_SESSION_HANDLE session, CK_BYTE *in, CK_ULONG inLength, CK_BYTE *out, CK_ULONG *outLength)
{
	if (fault("crash-decrypt"))
		crash();
	if (fault("hang-decrypt"))
		hang();
	if (fault("removed-at-decrypt"))
		return CKR_DEVICE_REMOVED;
	if (oaep && fault("claims-oaep")) {
		CK_BYTE scrap[1024];
		CK_ULONG size = sizeof scrap;
		theirs->C_Decrypt(session, in, inLength, scrap, &size); // ends the operation
		return CKR_DEVICE_ERROR;
	}
	if (fault("touch") && out != NULL)
		sleep(2);
	if (fault("empty-plaintext")) {
		*outLength = 0;
		return CKR_OK;
	}
	return theirs->C_Decrypt(session, in, inLength, out, outLength);
}

static CK_RV deriveKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE base, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *key)
{
	CK_ECDH1_DERIVE_PARAMS *p = mechanism->pParameter;
	int sized = 0, der = p->ulPublicDataLen > 2 && p->pPublicData[0] == 4 && p->pPublicData[1] == p->ulPublicDataLen - 2;
	for (CK_ULONG i = 0; i < count; i++)
		sized |= template[i].type == CKA_VALUE_LEN;
	if (fault("der-points") && !der)
		return CKR_MECHANISM_PARAM_INVALID;
	if (fault("raw-points") && der)
		return CKR_MECHANISM_PARAM_INVALID;
	if (fault("wants-length") && !(sized && der))
		return CKR_TEMPLATE_INCOMPLETE;
	if (fault("compressed-points")) {
		static CK_BYTE wrapped[256] = {4};
		if (p->pPublicData[0] != 2 && p->pPublicData[0] != 3)
			return CKR_MECHANISM_PARAM_INVALID;
		wrapped[1] = p->ulPublicDataLen; // the form in which SoftHSM takes it
		memcpy(wrapped + 2, p->pPublicData, p->ulPublicDataLen);
		p->pPublicData = wrapped;
		p->ulPublicDataLen += 2;
	}
	return theirs->C_DeriveKey(session, mechanism, base, template, count, key);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list)
{
	void *handle = dlopen(getenv("FAULT_MODULE"), RTLD_NOW);
	CK_C_GetFunctionList get = handle == NULL ? NULL : (CK_C_GetFunctionList)dlsym(handle, "C_GetFunctionList");
	if (get == NULL || get(&theirs) != CKR_OK)
		return CKR_GENERAL_ERROR;
	ours = *theirs;
	ours.C_Initialize = initialize;
	ours.C_GetSlotList = getSlotList;
	ours.C_GetTokenInfo = getTokenInfo;
	ours.C_GetMechanismInfo = getMechanismInfo;
	ours.C_OpenSession = openSession;
	ours.C_Login = login;
	ours.C_FindObjectsInit = findObjectsInit;
	ours.C_FindObjects = findObjects;
	ours.C_GetAttributeValue = getAttributeValue;
	ours.C_DecryptInit = decryptInit;
	ours.C_Decrypt = decrypt;
	ours.C_DeriveKey = deriveKey;
	ours.C_GetFunctionList = C_GetFunctionList;
	*list = &ours;
	return CKR_OK;
}
