package fido2

import "fmt"

// products names the models of keys by AAGUID where the name that the key gives
// over USB ("YubiKey OTP+FIDO+CCID") says little. Keys that are not in the table
// go by their own name. Sources: Yubico, "YubiKey Hardware FIDO2 AAGUIDs"
// (support.yubico.com), firmware 5.1 to 5.7; the others from the FIDO Metadata
// Service.
func products() map[string]string {
	return map[string]string{
		"cb69481e-8ff7-4039-93ec-0a2729a154a8": "YubiKey 5",
		"ee882879-721c-4913-9775-3dfcce97072a": "YubiKey 5",
		"19083c3d-8383-4b18-bc03-8f1c9ab2fd1b": "YubiKey 5",
		"ff4dac45-ede8-4ec2-aced-cf66103f4335": "YubiKey 5",
		"fa2b99dc-9e39-4257-8f92-4a30d23c4118": "YubiKey 5 NFC",
		"2fc0579f-8113-47ea-b116-bb5a8db9202a": "YubiKey 5 NFC",
		"a25342c0-3cdc-4414-8e46-f4807fca511c": "YubiKey 5 NFC",
		"d7781e5d-e353-46aa-afe2-3ca49f13332a": "YubiKey 5 NFC",
		"c5ef55ff-ad9a-4b9f-b580-adebafe026d0": "YubiKey 5Ci",
		"a02167b9-ae71-4ac7-9a07-06432ebb6f1c": "YubiKey 5Ci",
		"24673149-6c86-42e7-98d9-433fb5b73296": "YubiKey 5Ci",
		"73bb0cd4-e502-49b8-9c6f-b59445bf720b": "YubiKey 5 FIPS",
		"57f7de54-c807-4eab-b1c6-1c9be7984e92": "YubiKey 5 FIPS",
		"905b4cb4-ed6f-4da9-92fc-45e0d4e9b5c7": "YubiKey 5 FIPS",
		"c1f9a0bc-1dd2-404a-b27f-8e29047a43fd": "YubiKey 5 NFC FIPS",
		"fcc0118f-cd45-435b-8da1-9782b2da0715": "YubiKey 5 NFC FIPS",
		"79f3c8ba-9e35-484b-8f47-53a5a0f5c630": "YubiKey 5 NFC FIPS",
		"d8522d9f-575b-4866-88a9-ba99fa02f35b": "YubiKey Bio",
		"dd86a2da-86a0-4cbe-b462-4bd31f57bc6f": "YubiKey Bio",
		"7409272d-1ff9-4e10-9fc9-ac0019c124fd": "YubiKey Bio",
		"f8a011f3-8c0a-4d15-8006-17111f9edc7d": "Yubico Security Key",
		"b92c3f9a-c014-4056-887f-140a2501163b": "Yubico Security Key",
		"6d44ba9b-f6ec-2e49-b930-0c8fe920cb73": "Yubico Security Key NFC",
		"149a2021-8ef6-4133-96b8-81f8d5b7f1f5": "Yubico Security Key NFC",
		"a4e9fc6d-4cbe-4758-b8ba-37598bb5bbaa": "Yubico Security Key NFC",
		"e77e3c64-05e3-428b-8824-0cbeb04b829d": "Yubico Security Key NFC",
		"b7d3f68e-88a6-471e-9ecf-2df26d041ede": "Yubico Security Key NFC",
		"2cd2f727-f6ca-44da-8f48-5c2e5da000a2": "Nitrokey 3",
		"8876631b-d4a0-427f-5773-0ec71c9e0279": "Solo",
		"42b4fb4a-2866-43b2-9bf7-6c6669c2e5d3": "Google Titan v2",
		"833b721a-ff5f-4d00-bb2e-bdda3ec01e29": "Feitian ePass FIDO2",
		"ab32f0c6-2239-afbb-c470-d2ef4e254db7": "Token2 FIDO2",
	}
}

// formatAAGUID is the usual form of an AAGUID, that of a UUID. Keys may have none;
// then it is all zeros, and "" here.
func formatAAGUID(a []byte) string {
	if len(a) != 16 || [16]byte(a) == [16]byte{} {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", a[:4], a[4:6], a[6:8], a[8:10], a[10:])
}
